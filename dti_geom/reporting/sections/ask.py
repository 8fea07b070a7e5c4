"""The ask section: what a language model says of tokens, and whether it heard them."""

from dti_geom.probes.ask import RANDOM, AskedToken, AskResult
from dti_geom.reporting.blocks import Column, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.text import number, quoted, shown

_COLUMNS = (
    Column("of", kind="token"),
    Column("question", kind="text"),
    Column("answer", kind="token"),
    Column("nats a token", digits=3),
    Column("gain", digits=3),
    Column("verdict", kind="text"),
)


def ask_section(result: AskResult) -> Section:
    """Show the answers for tokens, for known words and for random directions."""
    groups = (
        ("Answers", result.tokens),
        ("Known words", result.known),
        (f"Random directions, norm {number(result.random[0].norm, 3)}", result.random),
    )
    return Section(
        title="What the language model says",
        aside=f"at most {result.length} tokens",
        blocks=[
            Finding(ask_finding(result)),
            Note(
                "The vector stands where a word would, and the model continues with the likeliest "
                "token, again and again, but never with the row nearest to the vector. Gain: nats "
                f"a token by which the vector makes its answer likelier than {RANDOM} random "
                "directions of that length do. A token is called heard if it gains more, over all "
                "questions, than each random direction gains over the others."
            ),
            *(
                Table(title, _COLUMNS, [row for token in tokens for row in _rows(result, token)])
                for title, tokens in groups
                if tokens
            ),
            Limits(
                "What a picture shows. The model continues a text that it never saw in training, "
                "and may speak of anything; the denoiser reads other states of it."
            ),
        ],
    )


def ask_finding(result: AskResult) -> str:
    """Say which tokens the model heard, and what it says of the one it heard best."""
    heard = [token for token in result.tokens if result.heard(token)]
    if not heard:
        return (
            f"The model heard none of {len(result.tokens)} tokens: their answers gain no more than "
            "those of random directions."
        )
    best = max(heard, key=lambda token: token.gain)
    answer = max(best.answers, key=lambda answer: answer.gain)
    question = answer.frame.replace("{}", best.query)
    return (
        f"The model heard {len(heard)} of {len(result.tokens)} tokens. Best heard is "
        f"{quoted(best.query)}: {quoted(question)} continues with {quoted(answer.text)}."
    )


def _rows(result: AskResult, token: AskedToken) -> list[list[Value]]:
    random = token in result.random
    verdict = "" if random else "heard" if result.heard(token) else "not heard"
    return [
        [
            shown(token.query),
            answer.frame,
            answer.text,
            answer.log_likelihood,
            answer.gain,
            verdict if number == 0 else "",
        ]
        for number, answer in enumerate(token.answers)
    ]
