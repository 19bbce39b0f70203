"""Models on servers: an Ollama server, or any with OpenAI's chat completions."""
