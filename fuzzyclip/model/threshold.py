"""A threshold with all that is known of it; `model.calibration` chooses them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fuzzyclip.utils.ranges import NUMBER
from fuzzyclip.utils.schemas import limit

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
#: What scores can be compared with.
Score = Annotated[float, limit(NUMBER)]


class Threshold(BaseModel):
    """A threshold and where it comes from; JSON by `model_dump` and `model_validate`.

    Attributes:
        value: scores from here on are anomalous; finite.
        method: "f1_max" and "quantile" as in `model.calibration`, "natural" where abnormal becomes
            likelier than normal, "given" by hand.
        good: normal images that it was chosen from.
        bad: anomalous ones.
        false_alarm_rate: share of normal images that reach it: counted ("f1_max"), or expected of
            new ones ("quantile").
        false_alarm_interval: where that rate of new images lies, to 95 %.
        miss_rate: share of anomalous images that do not reach it, counted.
        miss_interval: likewise.
        precision: share of anomalous ones among those that reach it.
        recall: 1 - `miss_rate`.
        f1: harmonic mean of the two.
        asked_rate: false alarm rate that was asked for.
        counted: what the rates are shares of. Pixels have no intervals: neighbours are alike.
        note: what a user should know, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: Score
    method: Literal["f1_max", "quantile", "natural", "given"]
    good: Count = 0
    bad: Count = 0
    false_alarm_rate: Share | None = None
    false_alarm_interval: tuple[Share, Share] | None = None
    miss_rate: Share | None = None
    miss_interval: tuple[Share, Share] | None = None
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    asked_rate: Share | None = None
    counted: Literal["images", "pixels"] = "images"
    note: str = ""


_LIKELIER = "not calibrated: where abnormal becomes likelier than normal"
#: Of image scores, which are log-odds, and of map pixels, which are probabilities.
NATURAL = Threshold(value=0.0, method="natural", note=_LIKELIER)
NATURAL_PIXEL = Threshold(value=0.5, method="natural", note=_LIKELIER)
