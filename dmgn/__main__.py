"""`python -m dmgn` is the `dmgn` command; `accelerate launch -m dmgn` runs it in several processes."""
from dmgn.commands.main import app

if __name__ == "__main__": app()
