"""What people write when they put a model behind HTTP in Python: FastAPI, transformers and one lock.

    python server.py --port 8000 --threads 2 model.gguf

The model is computed in 32-bit floating point on CPUs, one request after the other. /infer takes prompt and
max_new_tokens and answers with server-sent events, the last of which has the whole result and its metadata.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


class Request(BaseModel):
    prompt: str
    max_new_tokens: int = Field(ge=1, le=2048)


class Model:
    def __init__(self, path: str):
        directory, file = os.path.split(path)
        self.tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=file)
        self.network = AutoModelForCausalLM.from_pretrained(directory, gguf_file=file, dtype=torch.float32).eval()
        self.lock = threading.Lock()

    def events(self, request: Request) -> Iterator[str]:
        """Answers one request: the events of its reply."""
        arrived = time.perf_counter()
        with self.lock:
            began = time.perf_counter()
            inputs = self.tokenizer(request.prompt, return_tensors="pt")
            streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
            output = []
            worker = threading.Thread(target=self.generate, args=(inputs, request.max_new_tokens, streamer, output))
            worker.start()
            text = []
            for piece in streamer:
                if piece:
                    text.append(piece)
                    yield event({"token": piece})
            worker.join()
            tokens = output[0].shape[1] - inputs["input_ids"].shape[1]
            now = time.perf_counter()
        metadata = {"tokens_generated": tokens, "response_time": now - arrived, "generation_time": now - began}
        yield event({"result": "".join(text), "metadata": metadata})

    def generate(self, inputs, max_new_tokens: int, streamer: TextIteratorStreamer, output: list) -> None:
        try:
            options = {"max_new_tokens": max_new_tokens, "do_sample": False, "streamer": streamer}
            output.append(self.network.generate(**inputs, **options))
        finally:
            streamer.end()  # a failure ends the stream, too


def event(data: dict) -> str:
    return f"data: {json.dumps(data)}\n\n"


def application(model: Model) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict:
        return {"status": "ok", "timestamp": time.time()}

    @app.post("/infer")
    def infer(request: Request) -> StreamingResponse:
        return StreamingResponse(model.events(request), media_type="text/event-stream")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="A model behind FastAPI.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    uvicorn.run(application(Model(args.model)), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
