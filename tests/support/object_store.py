"""An object store: moto's server in a process of its own, and S3 as its own client shows it."""

from __future__ import annotations

import re
import sys
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psutil
from support.clusters import free_port, wait_for
from support.serving import KEY, SECRET

if TYPE_CHECKING:
    from pathlib import Path

_SERVER = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"


@dataclass
class ObjectStore:
    """S3 at `url`; its log has a line for each request."""

    port: int
    log: Path
    process: psutil.Popen

    @classmethod
    def start(cls, folder: Path) -> ObjectStore:
        port = free_port()
        log = folder / "moto.log"
        with log.open("wb") as file:
            command = [sys.executable, "-c", _SERVER, str(port)]
            process = psutil.Popen(command, stdout=file, stderr=file)
        wait_for(port, process)
        return cls(port, log, process)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What a user sets; the key and secret are those that no test may show."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def deny(self, after: int) -> None:
        """From the request on that comes after so many others, keys must be known and allowed."""
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth",
            data=str(after).encode(),
            headers={"Content-Type": "application/octet-stream"},
        )
        urllib.request.urlopen(request).close()

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def put(self, bucket: str, folder: Path, below: str) -> None:
        """All files of a folder, below a place in the bucket."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{below}/{path.relative_to(folder).as_posix()}"
                self.s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def keys(self, bucket: str, below: str = "") -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=bucket, Prefix=below)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def text(self, bucket: str, key: str) -> str:
        try:
            return str(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
        except self.s3.exceptions.NoSuchKey:
            return ""

    def downloads(self, bucket: str) -> list[str]:
        """The LoRA files whose content was asked for so far, once for each request."""
        lines = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text()).splitlines()
        asked = [line.split('"')[1].split()[1] for line in lines if '"GET /' in line]
        return [path for path in asked if path.startswith(f"/{bucket}/") and ".safetensors" in path]
