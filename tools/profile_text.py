"""The page that explains the shipped profiles: text of its own plus a table written between two marks."""

from __future__ import annotations

from tools.recipes import Fitted

BEGIN, END = "<!-- profiles: written by make profiles -->", "<!-- end of profiles -->"
INTRODUCTION = """# Device models

Latency of a network on a device is the sum over fused operators of six amounts times six prices: MACs of convolutions,
MACs of first convolutions (at most four input channels), depthwise MACs, elements moved, weights, operators. Prices are
fitted per target, runtime, precision and thread count on published measurements by `make profiles`, and shipped in
`profiles/`. A verdict `met` on an estimate needs the upper end of the 80 % band within the budget.

Errors below are |estimate / measured - 1|, median (90th percentile): of the many rows with one network left out, with a
whole family left out, and of the few rows of the deployed runtime with their family left out of both steps. `rows` are
the many + the few; `band holds` is the share of rows inside the band with their family left out, many / few. Of a
microcontroller, both are of the results of all boards with kernels of one kind, the family left out on every board.
"""
NOTES = """
- `rpi4`: the few rows are XNNPACK's own table (2022) and NetsPresso's LiteRT results (threads and clock not stated).
  The prior spread of the transfer was picked among three on these same rows, so expect slightly worse.
- `rpi5`: int8 rests on one network of the board itself.
- `rpi-zero2w`: part of the few rows are of the Pi 3B+, scaled by clock.
- int8 files of MobileNetV3 in NetsPresso's table run slower than their fp16 files: partly not int8, so left out.
- Microcontrollers: four networks cannot tell six prices apart, so the prices start from instructions counted while
  kernels ran on an emulated core, and the results of all boards correct them a little. About twenty variants of this
  were compared on the errors given here, so expect slightly worse.
- `ek-ra8d1`: one board with vector instructions; its own three networks disagree by half, hence the band.
- `esp32-s3`: from a table of kernel times; activations in external memory take more than twice as long.
- `host` is measured; its profile only starts the solver, and its band is stated, not judged.
- XNNPACK reads the patches of spatial convolutions in place and takes padding into them, so neither is priced there;
  CMSIS-NN and ruy copy patches, so their rows are fitted with that cost. Seen in XNNPACK's operator timings on x86.
- Not modelled yet: kernels work on 8 or 16 channels at once, so widths in between cost like the next multiple.
- A board of one's own replaces a profile by measuring on it.
"""


def _error(entry: dict[str, float] | None) -> str:
    return f"{entry['median']:.1%} ({entry['p90']:.0%})" if entry else "-"


def _held(facts: dict[str, float]) -> str:
    shares = [facts[key] for key in ("band_holds_of_base", "band_holds_of_deployed") if key in facts]
    return " / ".join(f"{share:.0%}" for share in shares) or "-"


def table(profiles: list[tuple[str, str, list[Fitted]]]) -> str:
    titles = "profile, precision, threads, rows, model left out, family left out, deployed, band, band holds"
    lines = ["| " + titles.replace(", ", " | ") + " |", "|" + " --- |" * 9]
    for target, runtime, models in profiles:
        for model in models:
            facts = model.provenance
            deployed = facts.get("deployed_left_out_family") or facts.get("step_left_out_board")
            count = str(facts["base"]["rows"])
            if "deployed" in facts:
                count += f" + {facts['deployed']['rows']}"
            band = f"{model.band[0]:.2f}-{model.band[1]:.2f}"
            lines.append(
                f"| {target}.{runtime} | {model.precision} | {model.threads} | {count} "
                f"| {_error(facts.get('base_left_out_model'))} | {_error(facts.get('base_left_out_family'))} "
                f"| {_error(deployed)} | {band} | {_held(facts)} |"
            )
    return "\n".join(lines)


def document(profiles: list[tuple[str, str, list[Fitted]]], before: str) -> str:
    """The page with the table replaced; text outside the marks is kept where the page exists."""
    block = f"{BEGIN}\n{table(profiles)}\n{END}"
    if BEGIN in before and END in before:
        return before[: before.index(BEGIN)] + block + before[before.index(END) + len(END) :]
    return f"{INTRODUCTION}\n{block}\n{NOTES}"
