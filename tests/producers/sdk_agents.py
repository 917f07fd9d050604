"""Agents that people write with the common SDKs. Each asks a few times and goes on from what it got."""

from __future__ import annotations

import json
from typing import Any

from rft.workflows.rollout import Outcome
from schemas.events import Task

TURN_TOKENS = 12


def openai_chat(base_url: str, api_key: str, task: Task) -> float:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key=api_key)
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": task.prompt}]
    for _ in range(3):
        reply = client.chat.completions.create(model="policy", messages=messages, max_tokens=TURN_TOKENS)
        messages += [reply.choices[0].message, {"role": "user", "content": "Go on."}]
    return 0.5


async def openai_streaming(base_url: str, api_key: str, task: Task) -> dict[str, float]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
        messages: list[Any] = [{"role": "user", "content": task.prompt}]
        for _ in range(3):
            stream = await client.chat.completions.create(
                model="policy", messages=messages, max_tokens=TURN_TOKENS, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
    return {"length": 3.0}


def openai_responses(base_url: str, api_key: str, task: Task) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key=api_key)
    first = client.responses.create(model="policy", input=task.prompt, max_output_tokens=TURN_TOKENS)
    client.responses.create(
        model="policy", input="Go on.", previous_response_id=first.id, max_output_tokens=TURN_TOKENS
    )


def anthropic_messages(base_url: str, api_key: str, task: Task) -> float:
    from anthropic import Anthropic

    client = Anthropic(base_url=base_url.removesuffix("/v1"), api_key=api_key)
    messages: list[Any] = [{"role": "user", "content": task.prompt}]
    for _ in range(3):
        reply = client.messages.create(model="policy", system="Be brief.", messages=messages, max_tokens=TURN_TOKENS)
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": "Go on."}]
    return 1.0


async def langgraph_loop(base_url: str, api_key: str, task: Task) -> float:

    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, MessagesState, StateGraph

    model = ChatOpenAI(model="policy", base_url=base_url, api_key=api_key, max_tokens=TURN_TOKENS)

    async def write(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def review(state: Any) -> Any:
        return {"messages": [HumanMessage("Go on.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("write", write)
    graph.add_node("review", review)
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda state: END if len(state["messages"]) > 5 else "review")
    graph.add_edge("review", "write")
    end = await graph.compile().ainvoke({"messages": [HumanMessage(task.prompt)]})
    return float(len(end["messages"]))


def smolagents_code(base_url: str, api_key: str, task: Task) -> float:
    from smolagents import CodeAgent, OpenAIServerModel

    model = OpenAIServerModel(model_id="policy", api_base=base_url, api_key=api_key, max_tokens=TURN_TOKENS)
    agent = CodeAgent(tools=[], model=model, max_steps=2, verbosity_level=0)
    return float(bool(agent.run(task.prompt)))


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def openai_tools(base_url: str, api_key: str, task: Task) -> Outcome:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key=api_key)
    messages: list[Any] = [{"role": "user", "content": task.prompt}]
    while calls := (message := _ask_with_tools(client, messages)).tool_calls:
        messages.append(message)
        for call in calls:
            total = sum(json.loads(call.function.arguments).values())
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(total)})
    return outcome_of(message.content)


def _ask_with_tools(client: Any, messages: list[Any]) -> Any:
    return client.chat.completions.create(model="policy", messages=messages, tools=[ADD]).choices[0].message


def anthropic_tools(base_url: str, api_key: str, task: Task) -> Outcome:
    from anthropic import Anthropic

    client = Anthropic(base_url=base_url.removesuffix("/v1"), api_key=api_key)
    add = {"name": "add", "description": "Add.", "input_schema": ADD["function"]["parameters"]}
    messages: list[Any] = [{"role": "user", "content": task.prompt}]
    while True:
        reply = client.messages.create(model="policy", messages=messages, tools=[add], max_tokens=TURN_TOKENS)
        if reply.stop_reason != "tool_use":
            return outcome_of(reply.content[0].text)
        messages.append({"role": "assistant", "content": reply.content})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": str(sum(block.input.values()))}
            for block in reply.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


async def langgraph_tools(base_url: str, api_key: str, task: Task) -> Outcome:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ChatOpenAI(model="policy", base_url=base_url, api_key=api_key).bind_tools([add])

    async def write(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("write", write)
    graph.add_node("tools", ToolNode([add]))
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", tools_condition)
    graph.add_edge("tools", "write")
    end = await graph.compile().ainvoke({"messages": [HumanMessage(task.prompt)]})
    return outcome_of(end["messages"][-1].content)


def outcome_of(said: Any) -> Outcome:
    return Outcome(reward=1.0, metadata={"said": said})
