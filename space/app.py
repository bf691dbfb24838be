"A Hugging Face Space: a photograph in, the same without rain, haze or reflections out."
import gradio as gr
from PIL import Image

from dmgn.files import EXAMPLES
from dmgn.widgets import NOISES, Desk

LONGEST = 1600  # pixels; on two processor cores such a photograph takes about half a minute


def cleaned(
    photograph: Image.Image | None,  # RGB; None: nothing was chosen
    task: str = "any",  # what to remove
    strength: float = 1.0,  # 0: nothing is changed, 1: the network's result
) -> tuple[tuple[Image.Image, Image.Image], Image.Image | None]:  # before and after, and what was found over the scene
    "Restore a photograph; a large one is reduced first"
    if photograph is None: raise gr.Error("Choose a photograph first.")
    desk = Desk(photograph, LONGEST)
    return (desk.photograph, desk.result(task, strength)), desk.restored(task).noise


demo = gr.Interface(
    cleaned, title="DMGN: rain, haze and reflections",
    inputs=[gr.Image(type="pil", label="Photograph"), gr.Dropdown(NOISES, value="any", label="Remove"),
            gr.Slider(0, 1, 1, label="Strength")],
    outputs=[gr.ImageSlider(type="pil", label="Before and after"), gr.Image(label="What lay over the scene")],
    examples=[[str(EXAMPLES / name), task, 1.0] for name, task in (
        ("cat_rain.png", "any"), ("coffee_haze.png", "dehazing"), ("coffee_reflection.png", "reflection"))],
    cache_examples=False, flagging_mode="never",
    article="Small networks, trained briefly, mostly on synthetic noise: compare before you keep a result. "
            "[Code and explanation](https://dmgn-authors.github.io/dmgn)")

if __name__ == "__main__": demo.launch()
