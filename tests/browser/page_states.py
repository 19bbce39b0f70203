"""The states of the pages that a test looks at: every page, and what can be opened on it.

Names in braces are ids of `tests.browser.filled_registry`. The states of a registry are visited in
order; those that change it come last.
"""

from __future__ import annotations

from tests.browser.acts import (
    PageState,
    choose,
    click,
    do,
    gone,
    open_folds,
    scroll_to,
    see,
    type_into,
    upload,
)

PASSWORD = "correct horse"

EMPTY = (
    PageState("welcome", "/"),
    PageState("no dataset", "/datasets"),
    PageState("no deleted dataset", "/datasets/deleted", repeats=True),
    PageState("no run", "/runs"),
    PageState("no blind test", "/blind-tests", repeats=True),
    PageState("no run to compare", "/runs/compare"),
    PageState("nothing to train on", "/train/new"),
    PageState("no preset", "/train/presets", repeats=True),
    PageState("no prompt set", "/prompt-sets", repeats=True),
    PageState("no adapter", "/adapters"),
    PageState("no deleted adapter", "/adapters/deleted", repeats=True),
    PageState("playground without adapters", "/play"),
    PageState("no image", "/renders"),
    PageState("no grid", "/grids"),
    PageState("no recipe", "/recipes"),
    PageState("no deleted recipe", "/storage/deleted?kind=recipes", repeats=True),
    PageState("nothing stored", "/storage"),
    PageState("no deleted run", "/storage/deleted", repeats=True),
    PageState("no worker", "/system"),
    PageState("the embedded base alone", "/base-models"),
    PageState("no caption model", "/caption-models"),
    PageState("sessions without a password", "/sessions", repeats=True),
    PageState("login without a password", "/login"),
)
"""Pages of a fresh registry."""

DATASETS = (
    # home and system
    PageState("home", "/"),
    PageState("theme menu", "/system", click("[popovertarget=theme-menu]"), "#theme-menu"),
    PageState("shortcuts", "/system", click("[popovertarget=shortcuts]"), "#shortcuts"),
    PageState("system with damaged files", "/system"),
    PageState("storage", "/storage"),
    PageState("delete old checkpoints", "/storage/forever/checkpoints?older_than_days=0"),
    PageState("delete old renders", "/storage/forever/renders?older_than_days=0", repeats=True),
    PageState("delete deleted renders", "/storage/forever/deleted-renders", repeats=True),
    PageState("delete images", "/storage/forever/images", repeats=True),
    PageState("delete the cache", "/storage/cache/delete", repeats=True),
    PageState("patterns", "/patterns", open_folds),
    PageState(
        "patterns, question",
        "/patterns",
        click("[popovertarget=confirm-example]"),
        "#confirm-example",
    ),
    PageState(
        "API reference",
        "/docs",
        do(
            see(".opblock"),
            type_into(".operation-filter-input", "cancel"),
            gone("#operations-tag-server"),
        ),
    ),
    PageState(
        "API reference, an operation",
        "/docs",
        do(
            click("#operations-deletion-deleteVersion .opblock-summary-control"),
            see(".opblock.is-open .responses-wrapper"),
        ),
        ".opblock.is-open",
    ),
    PageState("an unknown page", "/nowhere"),
    PageState("an unknown run", "/runs/999", repeats=True),
    PageState("an unknown adapter", "/adapters/nobody", repeats=True),
    PageState("a number that is none", "/runs?page=x", repeats=True),
    # datasets
    PageState("datasets", "/datasets"),
    PageState("datasets, form open", "/datasets", click(".actions .main"), "#new"),
    PageState("datasets, nothing found", "/datasets?q=zzz"),
    PageState(
        "datasets, form with errors",
        "/datasets",
        do(
            click(".actions .main"),
            type_into("#field-name", "x" * 200),
            click("#new button.button"),
            see(".field-error"),
        ),
    ),
    PageState("dataset", "/datasets/boats"),
    PageState("dataset without images", "/datasets/empty"),
    PageState("versions of a dataset", "/datasets/boats/versions"),
    PageState("changes of a dataset", "/datasets/boats/versions/compare?a={version}&b=now"),
    PageState("no versions", "/datasets/empty/versions", repeats=True),
    PageState("findings of a dataset", "/datasets/boats/checks"),
    PageState("findings without images", "/datasets/empty/checks", repeats=True),
    PageState("captions by a model", "/datasets/boats/captions/auto", open_folds),
    PageState(
        "captions by a model, with errors",
        "/datasets/boats/captions/auto",
        do(
            type_into("#field-do_not_name", "x" * 300),
            click(".auto-form .button.main"),
            see("#field-do_not_name-error"),
        ),
        "#auto-form",
    ),
    PageState("captions by a model, guesses", "/datasets/boats/captions/auto?above=50"),
    PageState("captions by a model, no image", "/datasets/empty/captions/auto", repeats=True),
    PageState("dataset with a missing file", "/datasets/broken"),
    PageState("dataset, uncaptioned", "/datasets/boats?show=uncaptioned", repeats=True),
    PageState("dataset, nothing found", "/datasets/boats?q=zzz", repeats=True),
    PageState(
        "dataset, words and sizes",
        "/datasets/boats?with=boat",
        do(click("#statistics > summary"), see("#statistics .word-list")),
    ),
    PageState("dataset, order", "/datasets/boats", do(click(".sort-menu > summary")), repeats=True),
    PageState("dataset, more", "/datasets/boats", do(click(".head-menu > summary")), repeats=True),
    PageState(
        "dataset, images selected",
        "/datasets/boats",
        do(click("[data-select]"), click(".bulk-bar .bulk-more > summary")),
        ".bulk-bar",
    ),
    PageState(
        "dataset, bulk edit",
        "/datasets/boats?edit=replace&find=%5Cw%2B&replacement=b&is_regex=1",
        see("#edit-preview ins"),
        ".edit-panel",
    ),
    PageState("dataset, bulk edit with an error", "/datasets/boats?edit=replace&find=(&is_regex=1"),
    PageState("dataset, edited", "/datasets/boats", click("#edit > summary")),
    PageState(
        "dataset, edited with errors",
        "/datasets/boats",
        do(
            click("#edit > summary"),
            type_into("#field-name", " "),
            click("#edit button"),
            see(".field-error"),
        ),
    ),
    PageState(
        "dataset, upload refused",
        "/datasets/boats",
        do(upload("[data-upload-input]", "notes.png"), see("[data-refused]")),
    ),
    PageState("image", "/datasets/boats/images/{image}", click("#image-captions .fold > summary")),
    PageState("deleted images", "/datasets/boats/deleted"),
    PageState(
        "delete an image", "/storage/forever/datasets/boats/images/{deleted_image}", repeats=True
    ),
    PageState("delete images of a dataset", "/storage/forever/datasets/boats/images", repeats=True),
    PageState("deleted datasets", "/datasets/deleted"),
    PageState("delete a dataset", "/storage/forever/datasets/{old}", repeats=True),
)
"""The home page, the system, storage, the API reference, errors and datasets."""

RUNS = (
    PageState("runs", "/runs"),
    PageState("runs, two chosen", "/runs", click("#choose-1", "#choose-2")),
    PageState("runs, nothing found", "/runs?q=zzz"),
    PageState("run, finished", "/runs/{trained}", see("canvas")),
    PageState("run, all folds", "/runs/{trained}", do(open_folds, see("canvas"))),
    PageState(
        "run, viewer", "/runs/{trained}", do(click("#sample-40-0"), see("#viewer")), "#viewer"
    ),
    PageState("run, trains", "/runs/{running}", see("canvas")),
    PageState(
        "run, cancel?",
        "/runs/{running}",
        click("[popovertarget=cancel-confirm]"),
        "#cancel-confirm",
    ),
    PageState("run, stop?", "/runs/{running}/stop"),
    PageState("run, change", "/runs/{running}/change"),
    PageState("run, waits", "/runs/{queued}"),
    PageState("run, failed", "/runs/{failed}", open_folds),
    PageState("run, canceled", "/runs/{canceled}", repeats=True),
    PageState("run, ruined", "/runs/{ruined}"),
    PageState("run, edit", "/runs/{trained}/edit"),
    PageState(
        "run, edit with errors",
        "/runs/{trained}/edit",
        do(type_into("[name=name]", " "), click("main form button"), see(".field-error")),
    ),
    PageState("run, images", "/runs/{trained}/images"),
    PageState("run, compare steps", "/runs/{trained}/compare?a=10&b=40"),
    PageState(
        "run, compare with the slider", "/runs/{trained}/compare?a=10&b=40", click("[value=slider]")
    ),
    PageState("blind tests", "/blind-tests"),
    PageState("new blind test", "/blind-tests/new?run={trained}", open_folds),
    PageState("new blind test, one candidate", "/blind-tests/new?candidate=none&question=keep"),
    PageState("blind test, a pair", "/blind-tests/{blind_open}", see("[data-ready]")),
    PageState(
        "blind test, stop?", "/blind-tests/{blind_open}", click("[popovertarget=stop]"), "#stop"
    ),
    PageState("blind test, decided", "/blind-tests/{blind_decided}"),
    PageState("delete a blind test", "/storage/forever/blind-tests/{blind_three}", repeats=True),
    PageState("blind test, three candidates", "/blind-tests/{blind_three}?pairs=all"),
    PageState("run, which checkpoint to keep", "/runs/{trained}/evaluation"),
    PageState("run, compare other checkpoints", "/runs/{trained}/evaluation?new=true"),
    PageState("run, compare one step", "/runs/{trained}/compare?a=10&b=10", repeats=True),
    PageState("sweep", "/sweeps/{sweep}"),
    PageState("sweep, start one", "/sweeps/new?a={trained}"),
    PageState("delete all runs but the winner", "/storage/forever/sweeps/{sweep}/others"),
    PageState("delete a sweep", "/storage/forever/sweeps/{deleted_sweep}", repeats=True),
    PageState("compare runs", "/runs/compare?a={trained}&b={ruined}"),
    PageState("compare a run with itself", "/runs/compare?a={trained}&b={trained}", repeats=True),
    PageState("compare with an unknown run", "/runs/compare?a={trained}&b=999"),
    PageState(
        "chosen runs are compared", "/runs/compare-chosen?run={trained}&run={failed}", repeats=True
    ),
    PageState("deleted runs", "/storage/deleted?kind=runs"),
    PageState("deleted checkpoints", "/storage/deleted?kind=versions", repeats=True),
    PageState("delete a run", "/storage/forever/runs/{deleted_run}", repeats=True),
    PageState("a run that is not deleted", "/storage/forever/runs/{failed}"),
    PageState("delete runs", "/storage/forever/runs", repeats=True),
    PageState("delete a preset", "/storage/forever/presets/{deleted_preset}", repeats=True),
    PageState("delete checkpoints", "/storage/forever/runs/{trained}/checkpoints", repeats=True),
    PageState("delete a checkpoint", "/storage/forever/runs/{ruined}/checkpoints/20", repeats=True),
    PageState("prompt sets", "/prompt-sets", open_folds),
    PageState(
        "prompt sets, an error",
        "/prompt-sets?dataset=chalk",
        do(click("#set-0 .main"), see(".field-error")),
    ),
    PageState("save a preset", "/runs/{trained}/preset"),
    PageState("nothing to save", "/runs/{ruined}/preset"),
    PageState("presets", "/train/presets", open_folds),
    PageState(
        "deleted preset", "/train/presets", do(click(".button.danger"), see(".toast")), "#toasts"
    ),
    # the form of a run
    PageState("train", "/train/new"),
    PageState("lost at this resolution", "/train/dry-runs/{dry_run}"),
    PageState(
        "train, measuring",
        "/train/new",
        do(click("#measure"), see("[name=stop_measuring]")),
        "#this-run",
    ),
    PageState("train, all folds", "/train/new?dataset=boats", open_folds),
    PageState("train on a transformer", "/train/new?base=base", open_folds),
    PageState("train again", "/train/new?from={trained}", repeats=True),
    PageState("train on", "/train/new?from={trained}&checkpoint=40"),
    PageState(
        "train, errors",
        "/train/new?dataset=chalk",
        do(type_into("#name", "x" * 300), click(".side > button"), see("#form-errors")),
    ),
    PageState(
        "train on several datasets",
        "/train/new?dataset=chalk",
        do(click("#datasets [value=add]"), see("#dataset_id_2")),
        "#datasets",
    ),
    PageState(
        "train, no dataset chosen",
        "/train/new?dataset=chalk",
        do(
            click("#datasets [value=add]"),
            see("#dataset_id_2"),
            click(".side > button"),
            see("#dataset_id_2-error"),
        ),
        "#datasets",
    ),
    PageState(
        "train, paste refused",
        "/train/new",
        do(
            click("#paste > summary"),
            type_into("#pasted", '{"rank": "many"}'),
            click("#use-pasted"),
            see("#paste [role=alert]"),
        ),
        "#paste",
    ),
)
"""Runs, their checkpoints and presets, and the form of a new run."""

ADAPTERS = (
    # base models
    PageState("base models", "/base-models"),
    PageState(
        "remove a base model?",
        "/base-models",
        click("[aria-label='Remove own']"),
        ".confirm:popover-open",
    ),
    PageState(
        "base models, refused",
        "/base-models",
        do(type_into("#source", "/nowhere"), click("main form .button.main"), see(".field-error")),
    ),
    PageState("subjects", "/base-models/1/subjects?q=ca"),
    PageState("caption models", "/caption-models"),
    PageState(
        "remove a caption model?",
        "/caption-models",
        click("[aria-label='Remove blip']"),
        ".confirm:popover-open",
    ),
    PageState(
        "caption models, refused",
        "/caption-models",
        do(type_into("#source", "/nowhere"), click("main form .button.main"), see(".field-error")),
        "main form.panel",
    ),
    PageState("subjects, none found", "/base-models/1/subjects?q=zzz"),
    # adapters
    PageState("an import from the Hub", "/hub-imports/{hub_import}"),
    PageState("adapters", "/adapters"),
    PageState("adapters, filtered", "/adapters?tag=chalk&q=chalk&base=sd1"),
    PageState("adapters, from the Hub", "/adapters", click(".from-hub > summary"), ".from-hub"),
    PageState("adapter", "/adapters/chalk"),
    PageState(
        "adapter, all folds",
        "/adapters/chalk?v=1",
        do(open_folds, scroll_to("#hub"), see("#hub form")),
    ),
    PageState(
        "adapter, formats", "/adapters/chalk", click("details.downloads > summary"), ".downloads"
    ),
    PageState(
        "adapter, actions of an image",
        "/adapters/chalk",
        click(".shot-menu > summary"),
        ".shot-menu[open]",
    ),
    PageState("adapter, edited", "/adapters/chalk?edit=1", None, "#about"),
    PageState("adapter, a ruined version", "/adapters/ruins"),
    PageState("adapter, imported", "/adapters/ink", repeats=True),
    PageState("adapter, resized version", "/adapters/chalk?v=3"),
    PageState("adapter, a checkpoint", "/adapters/{checkpoints}?v=20"),
    PageState(
        "adapter, alias refused",
        "/adapters/chalk?v=1",
        do(
            click("text=Set an alias for"),
            type_into("#field-alias", "1 2 3!"),
            click("text=Set alias"),
            see(".name-version .field-error"),
        ),
        "#versions",
    ),
    PageState("adapter, compare versions", "/adapters/chalk/compare?a=1&b=2", open_folds),
    PageState("adapter, compare one version", "/adapters/chalk/compare?a=1&b=1", repeats=True),
    PageState(
        "adapter, delete a version", "/storage/forever/adapters/{chalk}/versions/4", repeats=True
    ),
    PageState("adapter, hidden images", "/adapters/chalk/hidden"),
    PageState("adapter, no hidden images", "/adapters/ink/hidden", repeats=True),
    PageState("adapter, publish", "/adapters/chalk/hub?v=1"),
    PageState("adapter, which weight", "/adapters/chalk/weights?v=1"),
    PageState("adapter, measure weights", "/adapters/ink/weights"),
    PageState("styles like an adapter", "/adapters/chalk/like"),
    PageState("styles like one without an image", "/adapters/ink/like"),
    PageState("styles like a dataset", "/datasets/boats/like", repeats=True),
    PageState("styles like an image, waiting", "/style-searches/{search}", repeats=True),
    PageState("deleted adapters", "/adapters/deleted", repeats=True),
    PageState("no folder of another program", "/folders"),
    PageState("delete an adapter", "/storage/forever/adapters/{gone}", repeats=True),
    # tools
    PageState("tools", "/adapters/chalk/tools"),
    *(
        PageState(
            f"tools, {name}",
            "/adapters/chalk/tools",
            click(f"#tool-{name} > summary"),
            f"#tool-{name}",
        )
        for name in ("merge", "resize", "scale", "fuse", "extract")
    ),
    PageState(
        "tools, an adapter to choose",
        "/adapters/chalk/tools",
        do(click("#tool-merge > summary", "[data-picker-into]"), see("#adapter-picker")),
        "#adapter-picker",
    ),
    PageState("tools, done", "/adapters/chalk/tools?job={tool}"),
    PageState("tools, failed", "/adapters/chalk/tools?job={failed_tool}", repeats=True),
    PageState("tools, before and after", "/tool-jobs/{tool}/images"),
    PageState(
        "tools, fuse refused",
        "/adapters/chalk/tools",
        do(
            click("#tool-fuse > summary", "#tool-fuse form > .more > summary"),
            type_into("#tool-fuse [name=other-1]", "nobody"),
            click("#tool-fuse form > .row > .button"),
            see("#tool-fuse-other-1-error"),
        ),
        "#tool-fuse",
    ),
    # playground
    PageState("playground", "/play?adapter=chalk:0.8&prompt=a+castle"),
    PageState("playground on a Turbo", "/play?adapter=chalk&base=turbo", open_folds),
    PageState("playground, all folds", "/play?adapter=chalk:0.8", open_folds),
    PageState(
        "playground, a size far from the base's and a sampler that is not here",
        "/play?width=512&height=512&sampler=heun&base=gone",
        see("#size-note"),
        "#play-form",
    ),
    PageState(
        "playground, an adapter to add", "/play", do(click("#add-adapter"), see("#adapter-picker"))
    ),
    PageState(
        "playground, a text without settings",
        "/play",
        do(
            click("#recall > summary"),
            type_into("#infotext", "a castle"),
            click("#recall .button"),
            see("#recall-told .notice"),
        ),
    ),
    PageState(
        "playground, what does not fit",
        "/play?adapter=chalk:0.8&base=own&prompt=zorblax",
    ),
    PageState(
        "playground, errors",
        "/play?adapter=chalk:0.8",
        do(type_into("#weight-0", "much"), click("#draw"), see("#weight-0-error")),
    ),
    PageState(
        "playground, an image to start from", "/play?source=render:{render}", open_folds, "#source"
    ),
    PageState("render", "/renders/{render}"),
    PageState("gallery, two chosen", "/renders", click(".shot-choose", "li + li .shot-choose")),
    PageState(
        "gallery, actions of an image",
        "/renders",
        click(".shot-menu > summary"),
        ".shot-menu[open]",
    ),
    PageState("gallery, nothing found", "/renders?q=zzz"),
    PageState("deleted images of the playground", "/renders?show=deleted"),
    PageState("recipes", "/recipes", open_folds),
    PageState("playground with a recipe", "/recipes/evening-chalk", repeats=True),
    PageState("compare images", "/renders/compare?a=1&b={render}", click("[value=slider]")),
    PageState("compare an image with another", "/renders/compare?a={render}"),
    PageState("compare an unknown image", "/renders/compare?a={render}&b=999", repeats=True),
    PageState("render, compared", "/renders/{render}", click("[value=flicker]"), "#result"),
    PageState("render, waits", "/renders/{waiting_render}"),
    PageState("render, canceled", "/renders/{canceled_render}"),
    PageState("delete a render", "/storage/forever/renders/{render}", repeats=True),
    PageState("deleted grids", "/storage/deleted?kind=grids", repeats=True),
    PageState("delete a grid", "/storage/forever/grids/{deleted_grid}", repeats=True),
    PageState("a prompt set that is not deleted", "/storage/forever/prompt-sets/1", repeats=True),
    PageState("a recipe that is not deleted", "/storage/forever/recipes/1", repeats=True),
    PageState("grids", "/grids"),
    PageState("new grid", "/grids/new?adapter=chalk:0.8&prompt=a+castle", open_folds),
    PageState(
        "new grid, checkpoints",
        "/grids/new?adapter=chalk:0.8&adapter=ink:0.8&prompt=a+castle",
        do(choose("#rows-what", "checkpoint:0"), see("#rows-boxes .chip")),
    ),
    PageState(
        "grid, a cell chosen",
        "/grids/{grid}?sheet=1",
        do(click(".grid-cell"), see("#act-weight")),
    ),
    PageState("grid, canceled", "/grids/{canceled_grid}", open_folds),
    PageState("grid, cells compared", "/grids/{grid}/compare?a=0&b=1"),
    # what changes the registry
    PageState(
        "captions by a model, tried on an image",
        "/datasets/boats/captions/auto",
        do(click(".auto-try .button"), see("#preview img")),
        "#auto-form",
    ),
    PageState(
        "captions by a model, being written",
        "/datasets/boats/captions/auto",
        do(click(".auto-form [value=replace]", ".auto-form .main"), see("#results progress")),
        "#results",
    ),
    PageState(
        "dataset, image deleted",
        "/datasets/boats",
        do(click(".tile-delete button"), see(".toast")),
    ),
    PageState(
        "adapters, import refused",
        "/adapters",
        do(upload("#import-file", "bad.ckpt"), see("#imports .notice.bad")),
        "#import-panel",
    ),
    PageState(
        "adapters, import waits",
        "/adapters",
        do(upload("#import-file", "good.safetensors"), see("#imports .notice")),
    ),
    PageState(
        "adapters, Hub import waits",
        "/adapters",
        do(
            click(".from-hub > summary"),
            type_into("#hub-source", "acme/moss"),
            click(".from-hub form button"),
            see("#hub-imports .notice"),
        ),
        ".from-hub",
    ),
    PageState(
        "adapter, image hidden",
        "/adapters/chalk",
        do(click(".shot-menu > summary", ".shot-actions form[action$=hide] button"), see(".toast")),
        "#toasts",
    ),
    PageState(
        "tools, a merge waits",
        "/adapters/chalk/tools",
        do(
            click("#tool-resize > summary"),
            type_into("[name=resize-rank]", "3"),
            click("#tool-resize .button"),
            see("#tool-resize .notice"),
        ),
        "#tool-resize",
    ),
    PageState(
        "playground, generates",
        "/play?adapter=chalk:0.8&prompt=a+castle",
        do(click("#draw"), see("#cancel-render")),
        "#result",
    ),
    PageState(
        "playground, a strip waits",
        "/play?adapter=chalk:0.8&prompt=a+castle",
        do(click("#strip-panel .button"), see("#strip progress")),
        "#strip",
    ),
    PageState(
        "playground, a square",
        "/play?adapter=chalk:0.8&adapter=ink:0.4&prompt=a+castle&seed=7",
        do(click("[data-square]"), see("#strip .square")),
        "#strip",
    ),
    PageState(
        "playground, checkpoints",
        "/play?adapter=chalk:0.8&prompt=a+castle&seed=7&scrub=1",
        see("#strip .steps"),
        "#strip",
    ),
    PageState(
        "playground, redraws",
        "/play?adapter=chalk:0.8&prompt=a+castle",
        do(type_into("#weight-0", "0.9"), see("#cancel-render")),
        "#result",
    ),
    PageState("run, sampling soon", "/runs/{running}", click("#ask-sample"), "#run-head"),
    PageState(
        "run, canceling",
        "/runs/{running}",
        do(
            click("[popovertarget=cancel-confirm]", "#cancel-confirm .danger"),
            see("#run-head .chip"),
        ),
    ),
    PageState(
        "dataset deleted",
        "/datasets/ruins",
        do(click(".head-menu summary", ".head-menu [action$='/delete'] button"), see(".toast")),
        "#toasts",
    ),
    PageState(
        "run deleted", "/runs/{failed}", do(click(".actions .danger"), see(".toast")), "#toasts"
    ),
    PageState(
        "adapter deleted", "/adapters/ink", do(click(".actions .danger"), see(".toast")), "#toasts"
    ),
)
"""Base models, adapters, tools and the playground; then what changes the registry."""

LOCKED = (
    PageState("login", "/login"),
    PageState(
        "login, wrong password",
        "/login",
        do(type_into("#password", "a wrong one"), click("main button"), see("[role=alert]")),
    ),
    PageState(
        "login, then sessions",
        "/login?next=/sessions",
        do(type_into("#password", PASSWORD), click("main button"), see(".table")),
    ),
    PageState(
        "end other sessions?",
        "/sessions",
        click("[popovertarget=confirm-end-others]"),
        "#confirm-end-others",
    ),
)
"""Pages of a server whose password is `PASSWORD`."""

PEOPLE = (
    PageState("people", "/people"),
    PageState("people, a person's menu", "/people", click(".person > summary")),
    PageState(
        "people, invited",
        "/people",
        do(type_into("#field-name", "Farah"), click("#invite .button.main"), see("[data-copy]")),
    ),
    PageState(
        "people, a name that is taken",
        "/people",
        do(type_into("#field-name", "eva"), click("#invite .button.main"), see(".field-error")),
    ),
    PageState("audit log", "/people/log"),
    PageState("account", "/account"),
    PageState(
        "account, a new token",
        "/account",
        do(
            type_into("#field-name", "script"),
            click("[action='/account/tokens'] button"),
            see("[data-copy]"),
        ),
    ),
    PageState("who sees a dataset", "/share/dataset/1"),
    PageState(
        "dataset, shared",
        "/datasets/boats",
        do(click(".share > summary", "#share-private"), see("#sharing .link-button")),
        ".share",
    ),
    PageState("datasets, private", "/datasets"),
    PageState("adapters, one is another's", "/adapters"),
    PageState("gallery, what others drew", "/renders?whose=shared"),
    PageState("grids, none is another's", "/grids?whose=shared"),
    PageState("sessions of people", "/sessions"),
    PageState("invitation", "/invite/valid"),
    PageState(
        "invitation, a password that is guessed",
        "/invite/valid",
        do(type_into("#password", "password1234"), click("main button"), see("[role=alert]")),
    ),
    PageState("invitation that was used", "/invite/used"),
    PageState("runs, one waits for device time", "/runs", repeats=True),
)
"""Pages of a server with accounts, as its administrator sees them."""

AWAY = (
    PageState("home without a database", "/"),
    PageState("runs without a database", "/runs", repeats=True),
    PageState("storage without a database", "/storage"),
    PageState("system without a database", "/system"),
)
"""Pages while the database cannot be reached."""

FILLED = {"datasets": DATASETS, "runs": RUNS, "adapters": ADAPTERS}
"""Pages of a registry with something of everything."""
