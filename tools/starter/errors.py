"""Why a build cannot go on."""


class BuildError(Exception):
    """The build cannot start or go on; the message says what to do."""


class BuildInterrupted(BuildError):
    """Somebody stopped the build; its state is saved."""

    def __init__(self, stage: str, share: float) -> None:
        super().__init__(
            f"Stopped in the stage {stage!r} at {share:.0%}. Run the same command to go on."
        )
