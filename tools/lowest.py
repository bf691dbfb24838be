"Prints the lowest versions that settings.ini allows, as constraints for pip: python tools/lowest.py > lowest.txt"
from configparser import ConfigParser
from pathlib import Path

KINDS = ("requirements", "lpips_requirements", "hdf5_requirements", "widgets_requirements", "study_requirements")


def lowest(
    settings: Path,  # Of the project
) -> list[str]:  # name==version
    "The lower bound of everything that the package needs, and its extras."
    parser = ConfigParser(delimiters=["="])
    parser.read(settings, encoding="utf-8")
    return [need.replace(">=", "==") for kind in KINDS for need in parser["DEFAULT"][kind].split()]


if __name__ == "__main__": print(*lowest(Path(__file__).resolve().parents[1]/"settings.ini"), sep="\n")
