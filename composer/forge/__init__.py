"""What `action.yml` and docs/gitlab-ci.yml run: comments, statuses, issues and artifacts."""
