"""What a training run is asked to do.

Small frozen dataclasses, checked when they are built and saved beside every result.
"""

from dataclasses import dataclass, field

from dti_geom.errors import TrainingError
from dti_geom.files.adapters import KINDS
from dti_geom.models.magnitude import parse_magnitude
from dti_geom.models.noising import TIMES
from dti_geom.models.templates import TEMPLATES

SCHEDULES = ("constant", "linear", "cosine", "angular:RADIANS")
ANGULAR = "angular:"
OPTIMIZERS = ("sgd", "adam")
DTYPES = ("float32", "bfloat16", "float16")
MEMORY = ("auto", "fast", "low")
REFERENCES = ("same", "class-word")
MAX_CROPS = 1000
MAX_BATCH = 10_000  # images of a backward pass, and backward passes of an update


@dataclass(frozen=True)
class ConceptConfig:
    """One subject to learn, and the token that will stand for it.

    images: folder of images, a dataset's folder with one folder per subject, or the name of a
        concept that ships with a model.
    init: the class word or words: the direction of the prior and, by default, the start.
    start: word, output, mean, random, or the path of an embedding file.
    vectors: None for one per word of `init`, or as many as the start has.
    """

    token: str  # e.g. <my-dog>
    images: str
    init: str
    subject: str | None = None  # folder below `images`
    start: str = "word"
    vectors: int | None = None

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        clean = bool(self.token.strip()) and self.token == self.token.strip()
        _check(clean, "token", self.token, "a name like <x>")
        _check(" " not in self.token, "token", self.token, "a name without spaces")
        _check(bool(self.init.strip()), "init", self.init, "a word of the model, such as dog")
        enough = self.vectors is None or self.vectors >= 1
        _check(enough, "vectors", self.vectors, "1 or more")


@dataclass(frozen=True)
class MethodConfig:
    """How a token learns. None takes the method's own value.

    learning_rate: of an update, whatever the batch size; for `dti` in radians. A rate of a trainer
        that scales rates is to be multiplied by its batch size, accumulation and processes.
    magnitude: in the language of `dti_geom.models.magnitude`.
    average_last: take the average over that many last updates (directions on the sphere) as the
        result; 0 takes the last update.
    """

    name: str = "dti"
    learning_rate: float | None = None
    magnitude: str | None = None
    kappa: float | None = None  # strength κ of the prior along the init word's direction
    beta: float | None = None  # decay of Riemannian SGD's running second moment
    optimizer: str | None = None  # on the sphere: sgd or adam
    momentum: float | None = None  # of Riemannian SGD
    weight_decay: float | None = None  # of AdamW
    strength: float | None = None  # of crossinit, norm-decay and std-retraction: see their files
    schedule: str | None = None  # see `parse_schedule`
    warmup: int | None = None  # updates of linearly rising learning rate
    average_last: int | None = None

    def __post_init__(self) -> None:
        """Raise TrainingError or MagnitudeError for what no run could do."""
        for name in ("learning_rate", "kappa", "weight_decay", "strength"):
            value = getattr(self, name)
            finite = value is None or 0 <= value < float("inf")
            _check(finite, name, value, "a finite number, 0 or more")
        if self.magnitude is not None:
            parse_magnitude(self.magnitude, may_learn=True)
        if self.schedule is not None:
            parse_schedule(self.schedule)
        optimizers = (None, *OPTIMIZERS)
        _check(self.optimizer in optimizers, "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        for name in ("beta", "momentum"):
            value = getattr(self, name)
            _check(value is None or 0 <= value < 1, name, value, "a number in [0, 1)")
        for name in ("warmup", "average_last"):
            value = getattr(self, name)
            _check(value is None or value >= 0, name, value, "0 or more")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes over a run.

    angle: of an angular schedule, the first angle of the free vector whose angles it follows.
    """

    name: str  # constant, linear, cosine or angular
    angle: float = 0.0  # radians

    @property
    def ends(self) -> bool:
        """Whether the rate falls to 0 at the last update."""
        return self.name in ("linear", "cosine")


def parse_schedule(text: str) -> Schedule:
    """Read a schedule. Raises TrainingError for another text.

    constant, or linear or cosine down to 0, or `angular:RADIANS`: a free vector of norm n turns by
    θ = η√d/n in its first update, then by less because it grows: by θ/√(1 + θ²·t) in update t, as
    the law in docs/inflation.md says. The rate falls by that factor, whatever the method.
    """
    name, colon, number = text.partition(":")
    if text in SCHEDULES[:3]:
        return Schedule(name)
    try:
        angle = float(number)
    except ValueError:
        angle = 0.0
    valid = name + colon == ANGULAR and 0 < angle < float("inf")
    _check(valid, "schedule", text, f"{' or '.join(SCHEDULES)}, above 0")
    return Schedule(name, angle)


@dataclass(frozen=True)
class DataConfig:
    """How images become training samples.

    crops: fixed views of every image: the centre, then random cuts of a slightly enlarged image.
    random_crops: cut every sample at a random place of its image instead; encoded at each draw.
    captions: NAME.txt beside an image holds its prompt, with {} for the token.
    masks: folder of NAME.png; the loss counts where it is white.
    learn: what the token stands for, object or style; chooses the templates.
    templates: prompts with {} for the token; None takes those of `learn`.
    instruction: put SANA's instruction before each prompt, as its generation does; None takes the
        model's own, which is yes where there is one. Previews do as training does.
    stratified: spread the times of an update: one in each of as many equal parts of their
        distribution as it has samples of a concept. Each time is distributed as before.
    zero_pad: put a random number of zero vectors, 0 to 15, before the prompt of every sample.
    times: uniform or logit-normal, for flow models; None takes the model's.
    """

    resolution: int | None = None  # pixels of a side; None: the model's, see `TrainingDefaults`
    crops: int = 1
    random_crops: bool = False
    flip: bool = False  # also the mirror image of every view
    captions: bool = False
    masks: str | None = None
    learn: str = "object"
    templates: tuple[str, ...] | None = None
    instruction: bool | None = None
    stratified: bool = False
    zero_pad: bool = False
    times: str | None = None

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        large = self.resolution is None or self.resolution >= 8
        _check(large, "resolution", self.resolution, "8 pixels or more")
        # Every view of every image is kept in memory.
        _check(1 <= self.crops <= MAX_CROPS, "crops", self.crops, f"1 to {MAX_CROPS}")
        fixed = not self.random_crops or self.crops == 1
        _check(fixed, "crops", self.crops, "1, because random_crops has no fixed crops")
        _check(self.learn in TEMPLATES, "learn", self.learn, " or ".join(TEMPLATES))
        _check(self.times in (None, *TIMES), "times", self.times, " or ".join(TIMES))
        bad = [template for template in self.templates or () if "{}" not in template]
        usable = not bad and self.templates != ()
        _check(usable, "templates", bad or "none", "prompts with {} where the token goes")


@dataclass(frozen=True)
class AdapterConfig:
    """A small change of the denoiser's weights that learns beside the tokens, shared by them.

    rank and alpha are of a LoRA, block_size is of an OFT. The defaults are those of the official
    SDXL runs of Kim et al. (2026).

    targets: ends of the names of linear layers.
    learning_rate: of its own AdamW, whatever the batch size; schedule and warmup are the token's.
    from_step: updates before it begins to learn.
    """

    kind: str = "lora"  # lora or oft
    rank: int | None = None  # None: 4
    alpha: float | None = None  # None: the rank
    block_size: int | None = None  # None: 4
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    learning_rate: float = 5e-5
    weight_decay: float = 1e-2
    from_step: int = 0

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        _check(self.kind in KINDS, "adapter", self.kind, " or ".join(KINDS))
        foreign = ("block_size",) if self.kind == "lora" else ("rank", "alpha")
        for name in foreign:
            value = getattr(self, name)
            _check(value is None, name, value, f"nothing: a {self.kind} has none")
        whole = self.rank is None or self.rank >= 1
        _check(whole, "rank", self.rank, "1 or more")
        above = self.alpha is None or 0 < self.alpha < float("inf")
        _check(above, "alpha", self.alpha, "a finite number above 0")
        blocks = self.block_size is None or self.block_size >= 2
        _check(blocks, "block_size", self.block_size, "2 or more")
        _check(bool(self.targets), "targets", "none", "ends of layers' names, such as to_q")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            _check(0 <= value < float("inf"), name, value, "a finite number, 0 or more")
        _check(self.from_step >= 0, "from_step", self.from_step, "0 or more")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What a run minimises: a weighted sum of objectives. See `dti_geom.training.objectives`.

    names: None takes the method's own, which is denoising.
    dco_beta: β of `dco`.
    dco_reference: the frozen model answers the same prompt, or that with the class-word.
    prior_images: folder of images of the class; None lets the model paint them.
    prior_count: images of each class that the model paints.
    """

    names: tuple[str, ...] | None = None
    dco_beta: float = 1000.0
    dco_reference: str = "same"
    prior_weight: float = 1.0
    prior_images: str | None = None
    prior_count: int = 50
    context_weight: float = 0.1
    separation_weight: float = 0.1

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        beta = 0 < self.dco_beta < float("inf")
        _check(beta, "dco_beta", self.dco_beta, "a finite number above 0")
        known = self.dco_reference in REFERENCES
        _check(known, "dco_reference", self.dco_reference, " or ".join(REFERENCES))
        for name in ("prior_weight", "context_weight", "separation_weight"):
            value = getattr(self, name)
            _check(0 < value < float("inf"), name, value, "a finite number above 0")
        _check(self.prior_count >= 1, "prior_count", self.prior_count, "1 or more")
        _check(self.names != (), "objectives", "none", "at least one")


@dataclass(frozen=True)
class PreviewConfig:
    """The pictures a run paints during training; with `every` 0 there are none."""

    every: int = 200  # updates; also after the last
    prompts: tuple[str, ...] = ("a photo of a {}",)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int | None = None  # of the sampler; None: the model's own, 25 at most
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        _check(self.every >= 0, "preview every", self.every, "0 or more")
        with_token = all("{}" in prompt for prompt in self.prompts)
        _check(with_token, "preview prompt", self.prompts, "{} for the token")


@dataclass(frozen=True)
class RunConfig:
    """A whole training run.

    batch_size: images per concept, process and backward pass.
    accumulate: backward passes per update. The batches grow, the number of updates does not.
    min_snr: γ of the min-SNR loss weights; None leaves the loss unweighted.
    dtype: of the frozen parts; what learns is always float32. None takes the device's best.
    memory: fast, low (slower, for small cards), or auto: what fits the device by an estimate.
    """

    model: str
    concepts: tuple[ConceptConfig, ...]
    method: MethodConfig = field(default_factory=MethodConfig)
    data: DataConfig = field(default_factory=DataConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    adapter: AdapterConfig | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    steps: int | None = None  # updates; None: the adapter's own with one, else the model's
    batch_size: int = 4
    accumulate: int = 1
    min_snr: float | None = None
    checkpoint_every: int = 100  # updates
    seed: int = 0
    device: str = "cpu"
    dtype: str | None = None
    compile: bool = False  # compile the denoiser
    deterministic: bool = False  # on CUDA, kernels that repeat their results; a CPU always does
    memory: str = "auto"
    memory_reason: str | None = None  # why auto became what it is; a run fills it in
    extended_from: tuple[int, ...] = ()  # numbers of updates before a resumed run was given more

    def __post_init__(self) -> None:
        """Raise TrainingError for what no run could do."""
        tokens = [concept.token for concept in self.concepts]
        _check(bool(tokens), "concepts", "none", "at least one")
        _check(len(set(tokens)) == len(tokens), "concepts", tokens, "every token once")
        for name in ("batch_size", "accumulate"):
            value = getattr(self, name)
            _check(1 <= value <= MAX_BATCH, name, value, f"1 to {MAX_BATCH}")
        _check(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "1 or more")
        _check(self.steps is None or self.steps >= 1, "steps", self.steps, "1 or more")
        if self.adapter is not None and self.steps is not None:
            begins = self.adapter.from_step < self.steps
            expected = f"fewer than the {self.steps} updates of the run"
            _check(begins, "from_step", self.adapter.from_step, expected)
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        above_zero = self.min_snr is None or self.min_snr > 0
        _check(above_zero, "min_snr", self.min_snr, "a number above 0; the paper's is 5")
        _check(self.dtype in (None, *DTYPES), "dtype", self.dtype, ", ".join(DTYPES))
        _check(self.memory in MEMORY, "memory", self.memory, " or ".join(MEMORY))


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise TrainingError(f"{name} is {value!r}; expected {expected}.")
