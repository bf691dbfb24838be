"""`python -m dmgn` is the `dmgn` command; `accelerate launch -m dmgn` runs it in several processes."""
from dmgn.commands.main import app

app()
