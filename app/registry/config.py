"""Settings, read once from flags, the environment (`BRUSHWORK_…`) and `.env`."""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import AliasChoices, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.registry.actor import MAX_BYTES, MAX_MINUTES, MAX_WAITING, Limits
from worker.core.captioning.remote.addresses import split_address
from worker.core.documented import DocumentedModel

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
DEFAULT_PORT = 8188
SECRETS = (
    "BRUSHWORK_PASSWORD",
    "BRUSHWORK_OPENAI_KEY",
    "BRUSHWORK_DATABASE_URL",
    "BRUSHWORK_BROKER_URL",
    "BRUSHWORK_STORAGE_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BRUSHWORK_HUB_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)
"""Environment variables that processes without need of them do not get."""


class Settings(DocumentedModel, BaseSettings):
    """Settings of this process; by default everything runs on this machine."""

    model_config = SettingsConfigDict(
        env_prefix="BRUSHWORK_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    """Address the web server binds."""

    port: int = Field(DEFAULT_PORT, ge=0, le=65535)
    """Port of the web server; 0 takes a free one."""

    data_dir: Path = Field(default_factory=lambda: user_data_path("brushwork", appauthor=False))
    """Folder for the database, images, adapters and logs."""

    database_url: str | None = None
    """SQLAlchemy URL; unset: SQLite in the data folder."""

    broker_url: str | None = None
    """Redis or Valkey URL; unset: a private Valkey started by `serve`."""

    storage_url: str | None = None
    """s3://, gs:// or az:// bucket; unset: a folder in the data folder."""

    password: SecretStr | None = None
    """Password for all users, of 8 characters or more; required to bind beyond this machine."""

    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    """Host names the web server answers to, separated by commas."""

    trusted_proxies: str = "127.0.0.1,::1"
    """Addresses or networks of reverse proxies, separated by commas, whose X-Forwarded-For and
    X-Forwarded-Proto are believed."""

    start_token: bool = False
    """Ask for a token that is made at each start, against other users of this machine: on or
    off."""

    accounts: bool = False
    """People log in with names and passwords of their own, and what they make can be private: on or
    off. `brushwork users` invites them."""

    new_things: Literal["studio", "private"] = "studio"
    """With accounts, who sees what somebody makes, unless they choose: studio (everybody) or
    private."""

    quota_disk: ByteSize = Field(ByteSize(0), le=MAX_BYTES)
    """With accounts, the disk that one person's things may take, such as 50 GB; 0: no limit."""

    quota_device_hours: float = Field(0, ge=0, le=MAX_MINUTES // 60, allow_inf_nan=False)
    """With accounts, the hours of devices that one person may use in 30 days; then their trainings
    wait; 0: no limit."""

    quota_waiting: int = Field(0, ge=0, le=MAX_WAITING)
    """With accounts, the runs and renders of one person that may wait at once; 0: no limit."""

    identity_header: str = Field("", pattern=r"^[A-Za-z0-9-]*$")
    """With accounts, the request header in which a proxy names the person, such as Remote-User;
    unset: none is believed."""

    identity_proxies: str = ""
    """Addresses or networks of the proxies whose header is believed, separated by commas; unset:
    nobody's."""

    open_browser: bool = True
    """Open a browser when started on a terminal."""

    device: str = "auto"
    """Device of workers: auto, cpu, cuda, cuda:1, mps."""

    threads: int = Field(0, ge=0)
    """Maximum CPU threads of a training or render process; 0: all cores. Small base models use
    fewer if that is faster."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much the processes write to their logs."""

    lease_seconds: float = Field(20.0, gt=1)
    """A worker that is silent for this long loses its job to another."""

    evaluate_runs: bool = True
    """Compare the checkpoints of runs that ask for it once they have completed: on or off."""

    evaluation_eyes: str = "embedded"
    """Model that measures in evaluations: embedded, or the folder or Hub id of a CLIP or DINO
    model."""

    job_time_factor: float = Field(1.0, gt=0)
    """Multiplies the time limits of exports, imports and other io jobs; more for slow disks and
    processors."""

    model_folders: str = ""
    """Folders from which base models and caption models may be added, separated by commas; unset:
    any folder of this machine if nobody else can use the server, none otherwise."""

    hub: Literal["auto", "on", "off"] = "auto"
    """Whether users may download from the Hugging Face Hub and publish there; auto: if nobody else
    can use the server."""

    hub_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("BRUSHWORK_HUB_TOKEN", "HF_TOKEN")
    )
    """Access token for the Hub; unset: `HF_TOKEN`, then the login of this machine. Needed only for
    private and gated models, and for publishing."""

    hub_endpoint: str = Field(
        "https://huggingface.co",
        validation_alias=AliasChoices("BRUSHWORK_HUB_ENDPOINT", "HF_ENDPOINT"),
    )
    """Address of the Hub or of a mirror; unset: `HF_ENDPOINT`."""

    ollama_url: str | None = None
    """Address of an Ollama server that writes captions, such as http://127.0.0.1:11434."""

    ollama_model: str = ""
    """Its vision model, unless a person chooses another; such as llava."""

    ollama_local: bool = True
    """Offer an Ollama of this machine for captions, at 127.0.0.1:11434, where no other address is
    set: on or off. It is asked for its models when the page of captions opens."""

    openai_url: str | None = None
    """Address of a server with OpenAI's chat completions that writes captions, such as
    http://127.0.0.1:8000/v1."""

    openai_model: str = ""
    """Its vision model, unless a person chooses another."""

    openai_key: SecretStr | None = None
    """Key for that server; sent to no other address."""

    caption_hosts: str = ""
    """Hosts, separated by commas, that people may enter as another address for captions, such as
    gpu.lan:11434; unset: only the addresses above are used."""

    export_folders: str = ""
    """LoRA folders of other programs in which adapters can be kept, each after a name, separated by
    commas, such as ComfyUI=/srv/ComfyUI/models/loras."""

    @field_validator("trusted_proxies", "identity_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for part in _split(value):
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"{part} is no IP address or network; host names and * are not accepted"
                ) from error
        return value

    @field_validator("ollama_url", "openai_url")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        if value:
            split_address(value)
        return value or None

    @field_validator("export_folders")
    @classmethod
    def _check_folders(cls, value: str) -> str:
        for name, path in _named_paths(value).items():
            if not re.fullmatch(r"[\w.-]+", name) or not path.is_absolute():
                raise ValueError(f"{name}={path} is no name with the absolute path of a folder")
        return value

    @property
    def sqlalchemy_url(self) -> str:
        """SQLAlchemy URL of the registry's database."""
        if self.database_url:
            return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        return f"sqlite:///{self.data_dir / 'brushwork.db'}"

    @property
    def is_loopback(self) -> bool:
        """True if the web server is bound to this machine; a proxy may still lead others to it."""
        return _is_loopback_name(self.host)

    @property
    def is_behind_names(self) -> bool:
        """True if it answers to host names that lead to it from other machines, by a proxy."""
        return not all(_is_loopback_name(name) for name in self.allowed_host_list)

    @property
    def is_private(self) -> bool:
        """True if every user is the administrator of this machine's account.

        Accounts, a password or a host name of its own mean that others use the server too, maybe
        through a proxy on this machine.
        """
        is_alone = self.is_loopback and not self.is_behind_names
        return is_alone and not self.password and not self.accounts

    @property
    def login_conflict(self) -> str:
        """Why a server cannot start with these ways to log in; empty if it can."""
        if self.accounts and (self.password or self.start_token):
            other = "BRUSHWORK_PASSWORD" if self.password else "BRUSHWORK_START_TOKEN"
            return (
                f"BRUSHWORK_ACCOUNTS and {other} are both set, and whoever has that secret would "
                f"pass by the accounts. Remove {other}, or turn BRUSHWORK_ACCOUNTS off."
            )
        if self.identity_header and not (self.accounts and self.identity_proxies):
            missing = "BRUSHWORK_IDENTITY_PROXIES" if self.accounts else "BRUSHWORK_ACCOUNTS=on"
            return f"BRUSHWORK_IDENTITY_HEADER says who people are. Set {missing}, or remove it."
        return ""

    @property
    def limits(self) -> Limits | None:
        """What people may take of whom nothing else was said; None without accounts."""
        if not self.accounts:
            return None
        minutes = math.ceil(self.quota_device_hours * 60)
        return Limits(self.quota_disk or None, minutes or None, self.quota_waiting or None)

    @property
    def allowed_host_list(self) -> list[str]:
        """Allowed host names as a list."""
        return _split(self.allowed_hosts)

    @property
    def trusted_proxy_list(self) -> list[str]:
        """Addresses and networks of trusted proxies as a list."""
        return _split(self.trusted_proxies)

    @property
    def identity_proxy_networks(self) -> list[Network]:
        """Networks of the proxies that may say who a request comes from."""
        return [ipaddress.ip_network(one, strict=False) for one in _split(self.identity_proxies)]

    @property
    def caption_host_list(self) -> list[str]:
        """Hosts of further addresses for captions as a list."""
        return _split(self.caption_hosts)

    @property
    def scratch(self) -> Path:
        """Folder for temporary files of this machine."""
        return self.data_dir / "scratch"

    @property
    def hub_models(self) -> Path:
        """Folder for base models from the Hub."""
        return self.data_dir / "models"

    @property
    def caption_models(self) -> Path:
        """Folder for caption models from the Hub."""
        return self.data_dir / "caption-models"

    @property
    def model_folder_list(self) -> list[Path]:
        """Folders from which models may be added."""
        return [Path(part) for part in _split(self.model_folders)]

    @property
    def export_folder_paths(self) -> dict[str, Path]:
        """The LoRA folders of other programs, by their names."""
        return _named_paths(self.export_folders)


def _named_paths(text: str) -> dict[str, Path]:
    parts = [part.partition("=") for part in _split(text)]
    return {name.strip(): Path(path.strip()) for name, _, path in parts}


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_loopback_name(name: str) -> bool:
    """True for names and addresses that always mean this machine (RFC 6761 for `.localhost`)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
