"""An HTTP server on the client's own machine, with the API that applications already use: OpenAI's, and those of
Cohere and Jina where OpenAI has none. It tokenises and shares texts as any client does; the parties see no text.

`secformer gateway` starts it. May import `roles` and what lies below; only `views` and `commands` may import it.
"""
