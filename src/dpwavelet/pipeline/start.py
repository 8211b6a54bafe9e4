"""What private training starts from: the public model, or the same moved once by a noisy sum over records.

The exact sum lies in `private/surprise.safetensors` before noise is made, and the weights that follow from
the noisy one in `private/start.safetensors` after it. So a run that is resumed anywhere has one sum for one
noise, and one model to start from.
"""

from collections.abc import Callable

from dpwavelet.model import Model
from dpwavelet.pipeline.kept import keep, kept, noted, sum_of_tensors, sum_to_tensors
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.settings import warm_place
from dpwavelet.privacy.ledger import Charges
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens
from dpwavelet.training import check_unit
from dpwavelet.warm_start import Moving, begin_from, bound_of, release, surprise, with_weights

REHEARSAL = Moving(sequences=8, steps=1, batch_size=4, fit_steps=1)


def starting_model(
    model: Model,
    tokens: PrivateTokens,
    here: Ongoing,
    source: Callable[[], Source],
    ledger: Charges,
    moving: Moving | None = None,
) -> Model:
    """The model that training starts from; the plan and the ledger have paid for it before.

    Guarantee: it is a function of public things and of one noisy sum, for which the plan's event of the warm
    start pays. That sum is made once for one run, whatever is interrupted.
    """
    if (place := warm_place(here.settings)) is None:
        return model
    plan, run, progress = here.plan, here.name, here.progress
    check_unit(plan, tokens)
    path, exact = here.private / "start.safetensors", here.private / "surprise.safetensors"
    codes = model.tokenizer.codebook(0).codes
    bound = bound_of(model.transformer, codes)
    if not path.is_file():
        if not exact.is_file():
            progress.begin("measuring for the warm start", len(tokens))
            total = surprise(model.transformer, codes, tokens, progress.advance)
            keep(exact, run, sum_to_tensors(total))
        key = source()
        total = noted(sum_of_tensors(kept(exact, run)), ledger, run, place, key)
        noisy = release(total, plan, key, bound=bound, other=place)
        moving = moving or Moving(seed=here.settings.seed)
        progress.begin("warm start", moving.steps)
        started = begin_from(noisy, plan, place, model.transformer, codes, moving, progress.advance)
        keep(path, run, started.state_dict())
    return model.with_transformer(with_weights(model.transformer, kept(path, run)), model.card)
