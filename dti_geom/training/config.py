"""What a training run is asked to do: small frozen dataclasses, checked when built, saved beside every result."""

from dataclasses import dataclass, field

from dti_geom.errors import TrainingError

SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class ConceptConfig:
    """One subject to learn, and the token that will stand for it."""

    token: str  # e.g. <my-dog>
    images: str  # folder of images, or a dataset root with one folder per subject
    init: str  # class word or words: prior direction and, by default, start
    subject: str | None = None  # folder below `images`
    start: str = "word"  # word | output | mean | random | path of an embedding file
    vectors: int | None = None  # None: one for each token of `init`, or as many as the start has

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        _check(
            bool(self.token.strip()) and self.token == self.token.strip(),
            "token",
            self.token,
            "a name like <x>",
        )
        _check(" " not in self.token, "token", self.token, "a name without spaces")
        _check(bool(self.init.strip()), "init", self.init, "a word of the model, such as dog")
        _check(self.vectors is None or self.vectors >= 1, "vectors", self.vectors, "1 or more")


@dataclass(frozen=True)
class MethodConfig:
    """How the vectors learn; None takes the method's own default."""

    name: str = "dti"
    learning_rate: float | None = None  # per update, not multiplied by the batch size
    magnitude: str | None = (
        None  # mean | median | min | max | init | token:WORD | 2*mean … | a number | learned
    )
    kappa: float | None = None  # strength κ of the prior along the init word's direction
    beta: float = 0.0  # of the running second moment of Riemannian SGD
    optimizer: str = "sgd"  # on the sphere: sgd | adam
    momentum: float = 0.0  # of Riemannian SGD
    weight_decay: float | None = None  # of AdamW
    schedule: str = "constant"  # constant | linear | cosine, down to 0
    warmup: int = 0  # updates of linear rise
    average_last: int = 0  # average the vectors of that many last updates (directions on the sphere); 0: take the last

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        for name in ("learning_rate", "kappa", "weight_decay"):
            value = getattr(self, name)
            _check(
                value is None or 0 <= value < float("inf"),
                name,
                value,
                "a finite number, 0 or more",
            )
        _check(self.schedule in SCHEDULES, "schedule", self.schedule, " or ".join(SCHEDULES))
        _check(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        _check(0 <= self.beta < 1, "beta", self.beta, "a number in [0, 1)")
        _check(0 <= self.momentum < 1, "momentum", self.momentum, "a number in [0, 1)")
        _check(self.warmup >= 0, "warmup", self.warmup, "0 or more")
        _check(self.average_last >= 0, "average_last", self.average_last, "0 or more")


@dataclass(frozen=True)
class DataConfig:
    """How images become training samples."""

    resolution: int | None = None  # pixels of a side; None: what the model was trained at
    crops: int = 1  # fixed views of every image: the centre one, then random ones of a slightly enlarged image
    flip: bool = False  # also the mirror image of every view
    captions: bool = False  # NAME.txt beside an image holds its prompt, with {} for the token
    masks: str | None = None  # folder of NAME.png: the loss counts where it is white
    templates: tuple[str, ...] | None = None  # prompts with {} for the token; None: the model's own

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        _check(
            self.resolution is None or self.resolution >= 8,
            "resolution",
            self.resolution,
            "8 pixels or more",
        )
        _check(self.crops >= 1, "crops", self.crops, "1 or more")
        bad = [template for template in self.templates or () if "{}" not in template]
        _check(
            not bad and self.templates != (),
            "templates",
            bad or "none",
            "prompts with {} where the token goes",
        )


@dataclass(frozen=True)
class PreviewConfig:
    """The pictures a run paints on its way; with `every` 0 there are none."""

    every: int = 200  # updates; also before the first and after the last
    prompts: tuple[str, ...] = ("a photo of a {}",)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int | None = None  # of the sampler; None: the model's own
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        _check(self.every >= 0, "preview every", self.every, "0 or more")
        _check(
            all("{}" in prompt for prompt in self.prompts),
            "preview prompt",
            self.prompts,
            "{} for the token",
        )


@dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    model: str
    concepts: tuple[ConceptConfig, ...]
    method: MethodConfig = field(default_factory=MethodConfig)
    data: DataConfig = field(default_factory=DataConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    steps: int | None = None  # updates of the vectors; None: the model's own
    batch_size: int = 4  # images per concept, process and backward pass
    accumulate: int = (
        1  # backward passes per update: batches that many times larger, the same number of updates
    )
    min_snr: float | None = None  # γ of the min-SNR loss weights; None: unweighted
    checkpoint_every: int = 100  # updates
    seed: int = 0
    device: str = "cpu"
    dtype: str | None = (
        None  # of the frozen parts: float32, bfloat16, float16; the vectors are float32 always
    )
    compile: bool = False  # compile the denoiser

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        tokens = [concept.token for concept in self.concepts]
        _check(bool(tokens), "concepts", "none", "at least one")
        _check(len(set(tokens)) == len(tokens), "concepts", tokens, "every token once")
        for name in ("batch_size", "accumulate", "checkpoint_every"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _check(self.steps is None or self.steps >= 1, "steps", self.steps, "1 or more")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(
            self.min_snr is None or self.min_snr > 0,
            "min_snr",
            self.min_snr,
            "a number above 0; the paper's is 5",
        )
        _check(
            self.dtype in (None, "float32", "bfloat16", "float16"),
            "dtype",
            self.dtype,
            "float32, bfloat16, float16",
        )


def _check(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise TrainingError(f"{name} is {found!r}; expected {expected}.")
