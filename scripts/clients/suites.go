package main

import "os"

// suite is a program that tries one library, as one client or as several: LangChain, say, has one for each API.
type suite struct {
	name    string
	clients []string // as it calls them in its results
	command []string
}

var suites = []suite{
	python("openai", "openai-python"),
	node("openai", "openai-node"),
	python("anthropic", "anthropic-python"),
	python("langchain", "langchain-openai", "langchain-anthropic"),
	python("litellm", "litellm-openai", "litellm-anthropic"),
	python("instructor", "instructor"),
	node("vercel", "vercel-openai", "vercel-compatible", "vercel-anthropic"),
}

// python is a suite that runs in the virtual environment of its library.
func python(library string, clients ...string) suite {
	program := os.Getenv("PYTHON_ENVIRONMENTS") + "/" + library + "/bin/python"
	return suite{name: library + "-python", clients: clients, command: []string{program, "scripts/clients/python/" + library + "_suite.py"}}
}

func node(library string, clients ...string) suite {
	return suite{name: library + "-node", clients: clients, command: []string{"node", "scripts/clients/node/" + library + ".mjs"}}
}
