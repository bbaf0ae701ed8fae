#!/usr/bin/env bash
# The action's first step: installs compose from the action's own checkout into a virtual
# environment, and outputs the Python that the next steps run. It gets no token. `comment` runs on
# untrusted pull requests with a token that can write, so its environment has no dependencies.
set -euo pipefail
unset SCENARIO_SDK_API_KEY SCENARIO_SDK_API_SECRET SCENARIO_SDK_JWT  # pip does not need them

fail() { echo "::error title=compose::$1"; exit 1; }
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

base=
for candidate in python3 python; do
  if command -v "$candidate" >/dev/null && "$candidate" -I -c "$new_enough"; then
    base=$(command -v "$candidate")
    break
  fi
done
[ -n "$base" ] || fail "no Python 3.11 or newer found; run actions/setup-python first"
case "$INPUT_EXTRA" in
  '' | local | serve | preview | render) extra=$INPUT_EXTRA ;;
  *) fail "extra: it must be local, serve, preview, render, or empty" ;;
esac
[ "${INPUT_PREVIEWS:-}" != true ] || extra=${extra:+$extra,}preview

kind=${extra:-core} pip=
kind=${kind//,/-}
[ "$INPUT_COMMAND" != comment ] || kind=comment pip=--without-pip
venv="$RUNNER_TEMP/compose-venv-$kind"
# Installed once for all steps of a job that use the action.
[ -e "$venv/complete" ] || "$base" -I -m venv $pip "$venv"
python="$venv/bin/python"
[ -x "$python" ] || python="$venv/Scripts/python.exe"
if [ -e "$venv/complete" ]; then
  :
elif [ "$kind" = comment ]; then
  site=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$GITHUB_ACTION_PATH" >"$site/compose.pth"
else
  "$python" -I -m pip install --quiet --disable-pip-version-check \
    "$GITHUB_ACTION_PATH${extra:+[$extra]}"
fi
touch "$venv/complete"
echo "python=$python" >>"$GITHUB_OUTPUT"
