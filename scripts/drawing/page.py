"""The self-contained HTML page: data, styles, scripts and plotly.js in one file that opens from disk without a network."""
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent


def write(data, out):
    """Writes report.html and returns its path. Raises ImportError when plotly, which carries plotly.js, is missing."""
    from plotly.offline import get_plotlyjs

    # "</" would end the script element early; "<\/" is the same JSON string.
    embedded = json.dumps(data, allow_nan=False).replace("</", "<\\/")
    parts = {
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "plotly": get_plotlyjs().replace("</script", "<\\/script"),
        "data": embedded,
        "script": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    page = (HERE / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text, 1)
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
