"""How the results of a report were made: command, versions, machine, Git revision, time."""

from aejax.files import JsonObject
from aejax.report.collect import Collection


def provenance(collection: Collection) -> list[dict[str, str]]:
    """{name: text} of each group of runs with the same command, machine and versions."""
    groups: dict[str, list[JsonObject]] = {}
    for r in collection.results:
        group = (r.get("command"), r.get("machine"), r.get("versions"))
        groups.setdefault(repr(group), []).append(r)
    descriptions = []
    for members in groups.values():
        r = members[0]
        dates = sorted(str(m.get("date", "")) for m in members)
        seconds = sum((m.get("seconds") or {}).get("total", 0.0) for m in members)
        ids = ", ".join(m["id"] for m in members[:6]) + (", ..." if len(members) > 6 else "")
        data = {(r.get("data") or {}).get("train", ""): (r.get("data") or {}).get("fingerprint", "")
                for r in members}  # fmt: skip
        items = {
            "runs": f"{len(members)}" + (f" ({ids})" if len(groups) > 1 else ""),
            "command": r.get("command"),
            "versions": ", ".join(f"{k} {v}" for k, v in (r.get("versions") or {}).items()),
            "machine": r.get("machine"),
            "git revision": ", ".join(dict.fromkeys(m["git"] for m in members if m.get("git"))),
            "wall time": duration_text(seconds) if seconds else "",
            "date": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
            "data": "; ".join(f"{k} ({v})" for k, v in data.items() if k),
        }
        descriptions.append({name: value for name, value in items.items() if value})
    return descriptions


def duration_text(seconds: float) -> str:
    """A duration in words.

    Example:
      >>> [duration_text(s) for s in (75, 720, 7500)]
      ['75 s', '12 min', '2 h 5 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
