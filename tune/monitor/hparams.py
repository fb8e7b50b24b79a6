"""The HPARAMS page of TensorBoard: which columns it has, and the records that fill them.

What the page makes of them (read from its source, tensorboard 2.21) decides most of what is below:

* A run's start and end are metadata, and of metadata the *first* record of a tag counts, for ever.
* Parallel coordinates leave out every trial that lacks the value of a ticked column, and the five parameters
  that `differs` puts first are ticked when the page opens. So those that exist only under a condition are put
  last, and where fewer than five others are searched, the trial's number and settings fill the places.
* A trial without metrics, such as one that failed, is drawn once the metrics are unticked.
* Session groups with one name are averaged into one row. So no group is named, and each run is its own row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from tune.metrics import METRICS, TARGETS, Metric, Target, objectives_of
from tune.monitor import events
from tune.space.ranges import Choice, Interval, Range
from tune.space.space import SearchSpace

Status = Literal["finished", "failed", "pruned"]

# The page knows success and failure. A pruned trial was stopped early on purpose, not by an error.
STATUS: Mapping[Status, int] = {
    "finished": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "pruned": api_pb2.STATUS_SUCCESS,
}

TICKED = 5  # parameters that the page shows when it opens
FIRST = ("projector.restarts", "projector.steps", "unet.high_level_weight")  # always among them
FILLERS = ("data.name", "attack.epsilon", "classifier.architecture", "gan.loss")  # every trial has these

def experiment_record(space: SearchSpace, target: Target) -> bytes:
    """The experiment's configuration: every searched parameter with its range or values, every metric."""
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=hparam_infos(space),
        metric_infos=[
            *(_metric_info("result", METRICS[key]) for key in _shown(space, target)),
            *(_metric_info("test", METRICS[key]) for key in TARGETS[target].tested),
        ],
    )
    return _record(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def _shown(space: SearchSpace, target: Target) -> tuple[str, ...]:
    """Metrics of a trial's row: those of its target, after an objective that is none of them."""
    objectives = objectives_of(target, space.fixed["search.objective"])
    return tuple(dict.fromkeys([*objectives, *TARGETS[target].shown]))


def start_record(space: SearchSpace, trial: int, params: Mapping[str, Any]) -> bytes:
    """A session's start: the values of its row. A parameter that its condition leaves out has none."""
    fillers = {key: space.fixed[key] for key in _ticked(space) if key in space.fixed}
    start = SessionStartInfo(start_time_secs=time.time())
    for key, value in {"trial": trial, **fillers, **params}.items():
        _fill(start.hparams[key], value)
    return _record(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def end_record(status: Status) -> bytes:
    """A session's end."""
    end = SessionEndInfo(status=STATUS[status], end_time_secs=time.time())
    return _record(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def hparam_infos(space: SearchSpace) -> list[api_pb2.HParamInfo]:
    """The page's parameters: what is searched, the trial's number, and what fills the ticked places."""
    ticked = _ticked(space)
    infos = [_hparam_info(key, range_) for key, range_ in space.ranges.items()]
    infos.append(api_pb2.HParamInfo(name="trial", type=api_pb2.DATA_TYPE_FLOAT64))
    infos += [_hparam_info(key, Choice((space.fixed[key],))) for key in ticked if key in space.fixed]
    for info in infos:
        info.differs = info.name in ticked
    return infos


def _ticked(space: SearchSpace) -> list[str]:
    """The columns to show first: parameters that every trial has, R, L and λ before all others."""
    always = [key for key, range_ in space.ranges.items() if not range_.when]
    always.sort(key=lambda key: key not in FIRST)
    if len(always) == len(space.ranges):
        return always[:TICKED]
    return [*always, "trial", *(key for key in FILLERS if key in space.fixed)][:TICKED]


def _hparam_info(key: str, range_: Range) -> api_pb2.HParamInfo:
    info = api_pb2.HParamInfo(name=key, description=_description(range_))
    if isinstance(range_, Choice):
        info.type = _data_type(range_.options)
        for option in range_.options:
            _fill(info.domain_discrete.values.add(), option)
    else:
        info.type = api_pb2.DATA_TYPE_FLOAT64
        info.domain_interval.min_value, info.domain_interval.max_value = range_.low, range_.high
    return info


def _description(range_: Range) -> str:
    scale = ["searched on a logarithmic scale"] if isinstance(range_, Interval) and range_.log else []
    conditions = [f"only where {c.key} is {' or '.join(map(str, c.values))}" for c in range_.when]
    return "; ".join(scale + conditions)


def _data_type(options: Iterable[Any]) -> int:
    kinds = {type(option) for option in options}
    if kinds == {bool}:
        return int(api_pb2.DATA_TYPE_BOOL)
    return int(api_pb2.DATA_TYPE_FLOAT64 if kinds <= {int, float} else api_pb2.DATA_TYPE_STRING)


def _fill(slot: Any, value: Any) -> None:
    """Set a protobuf `Value`. The page filters by equality, so a domain and its rows are written alike."""
    if isinstance(value, bool):
        slot.bool_value = value
    elif isinstance(value, int | float):
        slot.number_value = value
    else:
        slot.string_value = "none" if value is None else str(value)


def _metric_info(split: str, metric: Metric) -> api_pb2.MetricInfo:
    name = metric.title if split == "result" else f"{split} {metric.title}"
    meaning = f"{metric.meaning}, as a fraction" if metric.unit == "share" else metric.meaning
    return api_pb2.MetricInfo(
        name=api_pb2.MetricName(tag=f"{split}/{metric.key}"), display_name=name, description=meaning
    )


def _record(tag: str, data: HParamsPluginData) -> bytes:
    about = metadata.create_summary_metadata(data)
    value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    return events.record(Summary(value=[value]))
