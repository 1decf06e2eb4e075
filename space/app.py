# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Space: a picture and expressions in the browser, masks for each. `python app.py` starts it."""

import os
from pathlib import Path

import gradio as gr
from analysis import (
    MAX_BYTES,
    MAX_EXPRESSIONS,
    analyse,
    draw_cut_outs,
    draw_heat_maps,
    draw_masks,
    draw_overlays,
    find_upload,
    open_upload,
    read_expressions,
    read_threshold,
    tabulate,
)
from gradio.utils import get_upload_folder
from transformers import Pipeline, pipeline

from remamber_hf import BUNDLED_MODEL, BUNDLED_PICTURES, keep_freed_memory
from remamber_hf.inference.explanation import HEAT


EXAMPLES = [
    ("shapes_3.png", "the purple star\nthe orange square"),
    ("shapes_1.png", "the yellow square\nthe triangle"),
    ("shapes_2.png", "the red circle\nthe green square"),
    ("shapes_5.png", "the pink heart\nthe striped heart\nthe tiny circle"),
    ("shapes_6.png", "the striped orange moon\nthe checkered ring"),
]
KEEP_SECONDS = 15 * 60  # how long a visitor's files and results stay
MAX_WAITING = 20  # requests in the queue
MAX_VISITORS = 50  # whose results are kept at the same time
INTRODUCTION = """
# ReMamber: name an object, get its mask
Give a picture and say what to look for. Referring image segmentation with
[ReMamber](https://arxiv.org/abs/2403.17839).
"""
ABOUT_THE_BUNDLED_MODEL = "This model knows drawn coloured shapes only, like those of the examples: no photographs."
ABOUT_KEEPING = f"""
Pictures and results are deleted after {KEEP_SECONDS // 60} minutes, results also when the page is closed or the
picture is removed. Nothing is collected.
"""
FORGOTTEN = f"Picture and result were deleted, as always after {KEEP_SECONDS // 60} minutes. Give the picture again."
VIEWS = {"Overlay": draw_overlays, "Mask": draw_masks, "Cut-out": draw_cut_outs, "Heat map": draw_heat_maps}
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none is loaded
HEAT_SCALE = '<div style="display: flex; align-items: center">0 %<div class="heat-scale"></div>100 % probability</div>'
CSS = """
.tables { display: flex; flex-wrap: wrap; align-items: start; gap: 16px 32px; }
.objects { flex: 1 1 260px; margin: 0 !important; }
.objects, .objects tr, .objects th, .objects td { border: 0 !important; }
.objects tr { box-shadow: 0 1px var(--border-color-primary); }
.objects th, .objects td { padding: 4px 8px; }
.objects tr > * + * { text-align: right; white-space: nowrap; }
.objects th:first-child { text-align: left; }
.objects td:first-child { width: 100%; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.6em; border-radius: 2px; }
.heat-scale { height: 0.8em; margin: 0 0.6em; flex-grow: 1; background: linear-gradient(to right, HEAT_COLOURS); }
.transparent img { background: repeating-conic-gradient(#ddd 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
#examples td { white-space: pre-line; }
@media (max-width: 480px) { .tab-container button { padding: 0 8px; } }  /* all tabs fit a phone */
""".replace("HEAT_COLOURS", ", ".join(f"rgb{colour}" for colour in HEAT))


def load_segmenters(names: str | None) -> dict[str, Pipeline]:
    """
    Pipelines for one model or, to compare, two: their folders or Hub names between commas, by default the bundled one.

    Raises:
        ValueError: more than two names, or two that end in the same.
    """
    sources = [name.strip() for name in (names or str(BUNDLED_MODEL)).split(",") if name.strip()]
    labels = {Path(source).name: source for source in sources}
    if not 1 <= len(sources) <= 2 or len(labels) < len(sources):
        raise ValueError(f"REMAMBER_MODELS is {names!r}; give one model or two with different names, as in a,b.")
    return {label: pipeline("referring-image-segmentation", model=source) for label, source in labels.items()}


def build_app(segmenters: dict[str, Pipeline], note: str = "", keep_seconds: float = KEEP_SECONDS) -> gr.Blocks:
    """The page for these models, with a note about them; what is older than `keep_seconds` is deleted."""
    is_alone = len(segmenters) == 1
    with gr.Blocks(
        title="ReMamber", analytics_enabled=False, delete_cache=(max(1, keep_seconds // 15), keep_seconds)
    ) as app:
        analysis = gr.State(time_to_live=keep_seconds)
        view = gr.State("Overlay")
        gr.Markdown(INTRODUCTION + note)
        with gr.Row():
            with gr.Column(min_width=320):
                picture = gr.Image(
                    label="Picture",
                    height=340,
                    image_mode=None,
                    type="filepath",
                    # A mirrored picture would swap left and right.
                    webcam_options=gr.WebcamOptions(mirror=False),
                )
                text = gr.Textbox(
                    label="Expressions",
                    info=f"One per line, at most {MAX_EXPRESSIONS}.",
                    placeholder="the left dog\nthe man in red",
                    lines=3,
                )
                button = gr.Button("Segment", variant="primary")
            with gr.Column(scale=len(segmenters), min_width=320):
                hint = gr.Markdown("The result will appear here.")
                with gr.Column(visible=False) as results:
                    threshold = gr.Slider(0.01, 0.99, 0.5, step=0.01, label="Threshold")
                    outputs, tabs = {}, {}
                    for name in VIEWS:
                        with gr.Tab(name) as tabs[name]:
                            with gr.Row():
                                outputs[name] = {model: make_output(name, model, is_alone) for model in segmenters}
                            if name == "Heat map":
                                gr.HTML(HEAT_SCALE)
                    table = gr.HTML()
        gr.Examples(
            [[str(BUNDLED_PICTURES / name), expressions] for name, expressions in EXAMPLES],
            [picture, text],
            cache_examples=False,
            elem_id="examples",
        )
        gr.Markdown(ABOUT_KEEPING)

        pictures = [output for by_model in outputs.values() for output in by_model.values()]

        def complain(message):
            gr.Warning(message)  # an error would cover the outputs too
            return gr.skip()

        def draw(kept, view, threshold):
            drawn = {output: VIEWS[view](kept, model, threshold) for model, output in outputs[view].items()}
            return {**drawn, table: tabulate(kept, threshold)}

        def segment(upload, text, view, threshold):
            try:
                threshold = read_threshold(threshold)
                expressions = read_expressions(text)
                picture = open_upload(find_upload(upload, get_upload_folder()))
                kept = analyse(segmenters, picture, expressions)
            except FileNotFoundError:
                return complain(FORGOTTEN)
            except ValueError as error:
                return complain(str(error))
            shown = {hint: gr.Markdown(visible=False), results: gr.Column(visible=True)}
            return {analysis: kept, **shown, **draw(kept, view, threshold)}

        def redraw(kept, view, threshold):
            if kept is None:
                return complain(FORGOTTEN)
            try:
                return draw(kept, view, read_threshold(threshold))
            except ValueError as error:
                return complain(str(error))

        def forget_result():
            return {analysis: None, hint: gr.Markdown(visible=True), results: gr.Column(visible=False)}

        def forget_visitor(request: gr.Request):
            app.state_holder.session_data.pop(request.session_hash, None)

        quick = {"concurrency_id": "draw", "api_visibility": "private"}
        button.click(
            segment,
            [picture, text, view, threshold],
            [analysis, hint, results, table, *pictures],
            preprocess=False,  # Gradio would decode the picture before its size is checked
            concurrency_id="model",
            concurrency_limit=1,
            api_visibility="private",
        )
        threshold.change(
            redraw,
            [analysis, view, threshold],
            [table, *pictures],
            trigger_mode="always_last",
            show_progress="hidden",
            preprocess=False,  # Gradio fails with a traceback where the threshold is no number
            **quick,
        )
        for name, tab in tabs.items():
            chosen = gr.State(name)
            tab.select(lambda name: name, chosen, view, **quick).then(
                redraw,
                [analysis, chosen, threshold],
                [table, *pictures],
                show_progress="minimal",
                preprocess=False,
                **quick,
            )
        picture.clear(forget_result, None, [analysis, hint, results], **quick)
        # Gradio itself would keep the state for an hour after the page was closed.
        app.unload(forget_visitor)
    return app.queue(max_size=MAX_WAITING)


def make_output(view: str, model: str, is_alone: bool) -> gr.Image | gr.Gallery:
    """Where one view of one model's results is shown, without the model's name if it is the only one."""
    common = {"label": model, "show_label": not is_alone, "format": "png", "interactive": False, "min_width": 280}
    if view == "Overlay":
        return gr.Image(buttons=["download", "fullscreen"], **common)
    return gr.Gallery(
        object_fit="contain",
        elem_classes="transparent" if view == "Cut-out" else None,
        buttons=["download", "download_all", "fullscreen"],
        **common,
    )


def launch(app: gr.Blocks, **options) -> tuple:
    """Starts the server; `options` are Gradio's."""
    return app.launch(
        max_file_size=MAX_BYTES,
        state_session_capacity=MAX_VISITORS,
        run_history=False,
        enable_monitoring=False,
        share=False,
        footer_links=[],
        theme=THEME,
        css=CSS,
        **options,
    )


if __name__ == "__main__":
    keep_freed_memory()
    names = os.environ.get("REMAMBER_MODELS")
    launch(build_app(load_segmenters(names), note="" if names else ABOUT_THE_BUNDLED_MODEL))
