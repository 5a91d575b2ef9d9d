"""A written page as a reader has it."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a browser would see: tags, attributes, visible text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in {"src", "href", "xlink:href", "srcset", "data", "action"}]

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.text += data + " "
