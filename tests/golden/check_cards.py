"""Do the cards of saved models read as the Hub reads them?

    python check_cards.py MODEL...

Each folder's README.md is loaded with huggingface_hub's ModelCard: the front matter has to parse, and what it says has to
be there as data: tags, library, pipeline, and results with finite numbers under names. Nothing goes over the network.
"""

import math
import sys
from pathlib import Path

from huggingface_hub import ModelCard


def check(folder: Path) -> str:
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    data = card.data
    assert data.library_name == "sentence-transformers", data.library_name
    assert "sentence-transformers" in data.tags and "tallow" in data.tags, data.tags
    assert data.pipeline_tag, "no pipeline_tag"
    results = data.eval_results or []
    for result in results:
        assert result.metric_name and result.task_type and result.dataset_name, result
        assert isinstance(result.metric_value, (int, float)) and math.isfinite(result.metric_value), result
    known = data.to_dict()
    for example in known.get("widget", []):
        assert "text" in example or (example["source_sentence"] and example["sentences"]), example
    assert card.text.count("\n| ") >= 2 and "{{" not in card.text and "{%" not in card.text
    # written again, the metadata is the same
    again = ModelCard(str(card), ignore_metadata_errors=False).data.to_dict()
    assert again == known, (again, known)
    return f"{len(results)} results, {len(known.get('widget', []))} examples, {', '.join(sorted(known))}"


for name in sys.argv[1:]:
    print(f"ok {Path(name).parent.name}: {check(Path(name))}")
