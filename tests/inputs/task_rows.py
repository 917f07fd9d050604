"""Bad tasks, rewards, workflows, tools and imports."""

from __future__ import annotations

from tests.inputs.rows import TASKS, Row, by_function, jsonl, reward, with_answers, with_questions


def source(name: str, **more: object) -> dict[str, object]:
    return {"tasks": {"source": name, **more}}


def rollout(**settings: object) -> dict[str, object]:
    return {"rollout": settings}


def imported(**settings: object) -> dict[str, object]:
    return {"imports": [{"name": "demo", "path": "demo.jsonl", **settings}]}


DEMO = jsonl(*({"prompt": f"{i}>", "response": "1"} for i in range(4)))
TASK_CODE = "def tasks(seed, n=8):\n    return [{'question': f'{i}>', 'answer': '1'} for i in range(n)]\n"

ROWS = [
    Row("unknown source", source("gsm8k"), "tasks.source = 'gsm8k' is unknown; choose reasoning_gym"),
    Row("misspelled source", source("json:tasks.jsonl"), "tasks.source.*did you mean 'jsonl:<file>'"),
    Row("no file", source("jsonl:gone.jsonl"), "cannot read gone.jsonl: No such file", real=True, command="conductor"),
    Row("file is a folder", source("jsonl:model"), "cannot read model: Is a directory"),
    Row("empty file", {}, "'jsonl:tasks.jsonl' is empty", files={"tasks.jsonl": ""}),
    Row("blank file", {}, "is empty", files={"tasks.jsonl": "\n\n  \n"}),
    Row("not JSON", {}, "tasks.jsonl:2: is not JSON", files={"tasks.jsonl": jsonl(TASKS[0]) + "{oops\n"}),
    Row("CSV", {}, "tasks.jsonl:1: is not JSON", files={"tasks.jsonl": "question,answer\n1,2\n"}),
    Row("one JSON list", {}, "must be a JSON object, found a list", files={"tasks.jsonl": "[{}]\n"}),
    Row("no question", {}, "has no field 'question'; it has prompt", files={"tasks.jsonl": jsonl({"prompt": "a"})}),
    Row("question is null", {}, "'question' must be a text, found None", files={
        "tasks.jsonl": jsonl({"question": None})}),
    Row("question is empty", {}, "'question' must be a text, found ''", files={"tasks.jsonl": jsonl({"question": ""})}),
    Row("question is a number", {}, "'question' must be a text, found 5",
        files={"tasks.jsonl": jsonl({"question": 5})}),
    Row("question is a list", {}, "'question' must be a text", files={"tasks.jsonl": jsonl({"question": ["a"]})}),
    Row("answer is a list", {}, "'answer' must be a text, a number or absent", files=with_answers(["1"])),
    Row("answer is true", {}, "'answer' must be a text, a number or absent, found True", files=with_answers(True)),
    Row("answer is NaN", {}, "'answer' must be a finite number, found nan", files=with_answers("1", float("nan"))),
    Row("answer is infinite", {}, "'answer' must be a finite number, found inf", files=with_answers(float("inf"))),
    Row("answer is null", {}, "exact_match needs the task's answer.*12 of 12 tasks", files=with_answers(None)),
    Row("some answers are null", {}, "exact_match needs the task's answer", level="warn", files=with_answers("1",
        None)),
    Row("answer is the text nan", {}, "an answer like 'nan'", level="warn", files=with_answers("nan", "1")),
    Row("answer is the text None", {}, "an answer like 'None'", level="warn", files=with_answers("None", "1")),
    Row("answer is empty", {}, "have an empty answer", level="warn", files=with_answers("", "1")),
    Row("lone surrogate", {}, "a lone surrogate", files={"tasks.jsonl": '{"question": "\\ud83d", "answer": "1"}\n'}),
    Row("template of another source", {"tasks": {"prompt_template": "{word}>"}},
        "prompt_template = '{word}>' does not fit.*its fields are question"),
    Row("template with a brace", {"tasks": {"prompt_template": "{question} {"}}, "does not fit"),
    Row("template without a field", {"tasks": {"prompt_template": "Solve it."}},
        "has only 1 different prompts|all tasks of .* have the same prompt"),
    Row("template without a field or evaluation", {"tasks": {"prompt_template": "Solve it."}, "eval": {"tasks": 0}},
        r"have the same prompt, 'Solve it.': use a field .*\{question\}"),
    Row("template by number", {"tasks": {"prompt_template": "{0}"}}, "does not fit"),
    Row("empty template", {"tasks": {"prompt_template": ""}}, "makes an empty prompt"),
    Row("unknown option of a source", {"tasks": {"options": {"field": "q"}}},
        "takes no 'field'; it takes question_field"),
    Row("wrong field", {"tasks": {"options": {"question_field": "q"}}}, "has no field 'q'; it has question, answer"),
    Row("more held out than there are", {"eval": {"tasks": 500}}, "eval.tasks = 500, but .* has only 16"),
    Row("all held out", {"eval": {"tasks": 16}}, "holds all of them out"),
    Row("shared prompts", {"tasks": {"eval_source": "jsonl:other.jsonl"}}, "share 4 of 4 held-out prompts", files={
        "other.jsonl": jsonl(*TASKS)}),
    Row("no evaluation file", {"tasks": {"eval_source": "jsonl:gone.jsonl"}}, "cannot read gone.jsonl"),
    Row("no file of a set", {"eval": {"sets": {"hard": {"source": "jsonl:gone.jsonl"}}}}, "cannot read gone.jsonl"),
    Row("unknown source of a set", {"eval": {"sets": {"hard": {"source": "gone"}}}}, "eval.sets.hard.source = 'gone'"),
    Row("unknown dataset", source("reasoning_gym:spell_backwards"), "no dataset 'spell_backwards'.*spell_backward"),
    Row("unknown option of a dataset", source("reasoning_gym:spell_backward", options={"length": 3}),
        "tasks.options do not fit reasoning_gym:spell_backward"),
    Row("reserved option", source("reasoning_gym:spell_backward", options={"seed": 3}), "'seed' is set by us"),
    Row("wrong option of a dataset", source("reasoning_gym:spell_backward", options={"min_word_len": -1}),
        "min_word_len must be positive"),
    Row("no import of that name", source("import:demo"), "there is no .*imports.* with name = 'demo'"),
    Row("no module of tasks", source("mine:tasks"), "importing 'mine' failed.*looked for in"),
    Row("no function of tasks", source("mine:task"), "has no 'task'; did you mean 'tasks'", files=reward(TASK_CODE)),
    Row("tasks raise", source("mine:tasks"), "mine:tasks raised ZeroDivisionError", files=reward(
        "def tasks(seed):\n    1 / 0\n")),
    Row("tasks return None", source("mine:tasks"), "returned a NoneType, must be an iterable", files=reward(
        "def tasks(seed):\n    pass\n")),
    Row("tasks give texts", source("mine:tasks"), "item 0 is a str, must be a dict", files=reward(
        "def tasks(seed):\n    return ['a']\n")),
    Row("tasks take another option", source("mine:tasks", options={"m": 3}), "unexpected keyword argument 'm'",
        files=reward(
        TASK_CODE)),
    Row("tasks exit", source("mine:tasks"), "raised SystemExit", files=reward(
        "import sys\ndef tasks(seed):\n    sys.exit(3)\n")),
    Row("difficulty is missing", {"tasks": {"order": "easy_to_hard"}},
        "tasks.difficulty = 'difficulty' is not a number"),
    Row("no function of an order", {"tasks": {"order": "mine:choose"}}, "tasks.order = 'mine:choose'.*No module"),
    Row("unknown reward", by_function("exact"), "'exact' is unknown.*exact_match", real=True, command="processor"),
    Row("misspelled reward", by_function("exact_mach"), "did you mean 'exact_match'"),
    Row("no module of a reward", by_function("mine:score"), "No module named 'mine'. A module is looked for in"),
    Row("no function of a reward", by_function("mine:scores"), "has no 'scores'; did you mean 'score'", files=reward(
        "def score(response, answer): return 1.0\n"), real=True, command="eval"),
    Row("reward is no function", by_function("mine:score"), "is a int, not a function", files=reward("score = 1\n")),
    Row("syntax error", by_function("mine:score"), "importing 'mine' failed: SyntaxError",
        files=reward("def score(:\n")),
    Row("import error", by_function("mine:score"), "No module named 'not_there'", files=reward("import not_there\n")),
    Row("import raises", by_function("mine:score"), "importing 'mine' failed: ValueError: no", files=reward(
        "raise ValueError('no')\n")),
    Row("import exits", by_function("mine:score"), "importing 'mine' failed: SystemExit", files=reward(
        "import sys\nsys.exit(1)\n")),
    Row("reward takes one argument", by_function("mine:score"), "too many positional arguments", files=reward(
        "def score(response): return 1.0\n")),
    Row("reward takes no argument", by_function("mine:score"), "too many positional arguments", files=reward(
        "def score(): return 1.0\n")),
    Row("reward needs another argument", by_function("mine:score"), "missing a required argument: 'truth'",
        files=reward(
        "def score(response, answer, truth): return 1.0\n")),
    Row("unknown option of a reward", by_function("exact_match", options={"case": True}),
        "unexpected keyword argument 'case'; its options are ignore_case"),
    Row("option hides the prompt", by_function("mine:score", options={"prompt": "x"}), "would hide", files=reward(
        "def score(response, answer, **options): return 1.0\n")),
    Row("wrong option of a reward", by_function("length_penalty", options={"limit": -1, "free": 3}),
        "length_penalty cannot work"),
    Row("wrong pattern", by_function("format", options={"pattern": "("}), "format cannot work with"),
    Row("unknown key of a reward", {"processor": {"rewards": [{"name": "exact_match"}]}}, "unknown key"),
    Row("rewards as texts", {"processor": {"rewards": ["exact_match"]}}, "processor.rewards"),
    Row("reward has a bug", by_function("mine:score"), "raised NameError.*4 of 4", files=reward(
        "def score(response, answer): return missing\n")),
    Row("reward returns a text", by_function("mine:score"), "returned the text 'yes', must be a number", files=reward(
        "def score(response, answer): return 'yes'\n")),
    Row("reward returns a list", by_function("mine:score"), r"returned \[1\], must be a number", files=reward(
        "def score(response, answer): return [1]\n")),
    Row("reward returns NaN", by_function("mine:score"), "returned nan; rewards are finite", files=reward(
        "def score(response, answer): return float('nan')\n")),
    Row("reward raises on other responses", by_function("mine:score"), "raised ValueError", level="warn", files=reward(
        "def score(response, answer): raise ValueError('no tag')\n")),
    Row("reward wants metadata that tasks lack", by_function("mine:score"), "raised KeyError: 'unit'", files=reward(
        "def score(response, answer, *, metadata): return float(metadata['unit'] == 'm')\n")),
    Row("right answer earns nothing", by_function("mine:score"), "earns no more than an empty response .4 of 4",
        level="warn", files=reward("def score(response, answer): return float('<answer>' in response)\n")),
    Row("answers without a number", by_function("numeric_match"), "numeric_match needs a number as answer, found 'one'",
        files=with_answers("one")),
    Row("no rewards", {"processor": {"rewards": []}}, "every reward is 0", level="warn"),
    Row("package with our name", by_function("schemas.mine:score"), "'schemas' is a package of Stream-RFT.*rename it",
        files={"schemas/__init__.py": "", "schemas/mine.py": "def score(response, answer): return 1.0\n"}, real=True),
    Row("infra with our name", by_function("infra.mine:score"), 'name the file: "infra/mine.py:<function>"', files={
        "infra/mine.py": "def score(response, answer): return 1.0\n"}),
    Row("rft.py with our name", by_function("rft:score"), "'rft' is a package of Stream-RFT", files={
        "rft.py": "def score(response, answer): return 1.0\n"}),
    Row("no such file of a function", by_function("rewards/mine.py:score"), "there is no file rewards/mine.py in"),
    Row("no function in a file", by_function("rewards/mine.py:score"), "has no 'score'", files={
        "rewards/mine.py": "def other(response, answer): return 1.0\n"}),
    Row("beside the configuration", {**by_function("mine:scor"), "policy": {"model": "../model"}, "tasks": {
        "source": "jsonl:../tasks.jsonl"}}, "mine.py has no 'scor'; did you mean 'score'", elsewhere=True, files=reward(
        "def score(response, answer): return 1.0\n")),
    Row("unknown workflow", rollout(workflow="chatt"), "rollout.workflow = 'chatt' is unknown.*'chat'", real=True,
        command="explorer"),
    Row("workflow is no coroutine", rollout(workflow="mine:talk"), "must be an 'async def' function", files=reward(
        "def talk(task, conversation): pass\n")),
    Row("workflow takes one argument", rollout(workflow="mine:talk"), "must take .task, conversation.", files=reward(
        "async def talk(task): pass\n")),
    Row("no module of a workflow", rollout(workflow="mine:talk"), "rollout.workflow = 'mine:talk'.*No module"),
    Row("react without tools", rollout(workflow="react"), 'rollout.workflow = "react" needs tools'),
    Row("tools without react", rollout(tools=["mine:add"]), 'rollout.tools is set, but only rollout.workflow = "react"',
        files=reward("def add(a: int, b: int) -> int:\n    '''Add.'''\n    return a\n"), real=True, command="doctor"),
    Row("MCP without react", rollout(mcp=[{"command": ["python"]}]), "rollout.mcp is set, but only"),
    Row("tools with a workflow of one's own", rollout(tools=["mine:add"], workflow="mine:talk"), "rollout.tools is set",
        level="warn", files=reward("async def talk(task, conversation): pass\ndef add(a: int): pass\n")),
    Row("no function of a tool", rollout(workflow="react", tools=["mine:sub"]), "has no 'sub'", files=reward(
        "def add(a: int) -> int:\n    '''Add.'''\n    return a\n")),
    Row("tool is no function name", rollout(workflow="react", tools=["calculator"]), "names no function"),
    Row("no program of MCP", rollout(workflow="react", mcp=[{"command": ["no-such-program"]}]),
        "there is no program 'no-such-program'"),
    Row("MCP with two ways", rollout(mcp=[{"command": ["a"], "url": "http://a"}]), "give either command or url"),
    Row("environment without a workflow", {**source("environment"), **rollout(environment="reasoning_gym:chain_sum")},
        'set rollout.workflow = "environment"'),
    Row("workflow without an environment", rollout(workflow="environment"), "needs rollout.environment"),
    Row("source without an environment", {**source("environment"), **rollout(workflow="environment")},
        "needs rollout.environment"),
    Row("unknown environment", rollout(workflow="environment", environment="atari"), "'atari' is unknown"),
    Row("environment that nobody plays", rollout(environment="reasoning_gym:chain_sum"),
        "rollout.environment is set, but rollout.workflow is 'single_turn'", level="warn"),
    Row("system prompt that nobody reads", {"tasks": {"system_prompt": "Be brief."}}, "only tasks.chat = true reads it",
        level="warn"),
    Row("no program", rollout(command=["no-such-agent"]), "rollout.command: there is no program 'no-such-agent'"),
    Row("no function of an agent", rollout(agent="mine:agent"), "rollout.agent = 'mine:agent'.*No module"),
    Row("agent takes another argument", rollout(agent="mine:agent"), "which an explorer does not give", files=reward(
        "def agent(client): pass\n")),
    Row("no file of an import", imported(), r"\[\[imports\]\] demo: there is no|cannot read .*demo.jsonl", real=True,
        command="import"),
    Row("import of a CSV", imported(path="demo.csv"), "not a .jsonl, .parquet or .arrow file", files={
        "demo.csv": "a,b\n"}),
    Row("empty import", imported(), "has no rows", files={"demo.jsonl": ""}),
    Row("columns of another name", imported(),
        "4 of the first 4 rows of demo.jsonl cannot be used.*no column 'response'; it has question", files={
        "demo.jsonl": jsonl(*({"question": "a", "answer": "b"} for _ in range(4)))}),
    Row("some bad rows", imported(), "1 of the first 5 rows", level="warn", files={"demo.jsonl": DEMO + "{oops\n"}),
    Row("template of an import", imported(prompt_template="{word}>"), "prompt_template does not fit: KeyError", files={
        "demo.jsonl": DEMO}),
    Row("messages without a template", imported(columns={"messages": "messages"}), "no chat template", files={
        "demo.jsonl": jsonl({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})}),
    Row("preferences that are the same", imported(kind="preferences"), "chosen and rejected are the same", files={
        "demo.jsonl": jsonl({"prompt": "a", "chosen": "b", "rejected": "b"})}),
    Row("two imports of a name", {"imports": [{"name": "a", "path": "a.jsonl"}, {"name": "a", "path": "b.jsonl"}]},
        "two have the same name"),
    Row("questions that repeat", {"eval": {"tasks": 4}}, "has only 1 different prompts", files={
        "tasks.jsonl": jsonl(*[TASKS[0]] * 9)}),
    Row("answers are characters unknown", {}, "cannot write these answers", level="warn", files=with_answers("Ω")),
    Row("prompts hold tabs that stay", {}, "no token for 'é'", level="warn", files=with_questions("caf\u00e9")),
]  # fmt: skip
