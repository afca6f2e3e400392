"""What the findings of a plan are called, which of them block, and in which words each names its cause."""

WORDS: dict[str, tuple[bool, str]] = {
    "system_prompt_dropped": (
        True,
        "the chat template leaves the system message out: the model would be trained, and asked, without it. Put it "
        "into the first user message, or use a template that writes it",
    ),
    "turn_dropped": (
        True,
        "the chat template leaves what the user said in a turn out. Use a template that writes every turn",
    ),
    "answer_dropped": (
        True,
        "the chat template leaves what the assistant said in a turn out. Use a template that writes every turn",
    ),
    "tool_result_dropped": (
        True,
        "the chat template leaves out what a tool answered: the model would learn to answer without having read it. "
        "Use a base whose template has the role `tool`",
    ),
    "tool_calls_dropped": (
        True,
        "the chat template does not write tool calls: the model would never learn to call, and would learn to say "
        "nothing in their place. Use a base whose template has tool_calls, or take such rows out",
    ),
    "tools_dropped": (
        True,
        "the chat template does not write the tools of a row: the model would learn to call what it was never shown. "
        "Use a base whose template has tools, or take such rows out",
    ),
    "reasoning_dropped": (
        True,
        "the chat template does not write the reasoning of an answer (reasoning_content): it would not be learned. Use "
        "a base whose template has it, or write reasoning: drop to train the answers without it",
    ),
    "earlier_reasoning_dropped": (
        True,
        "the chat template leaves the reasoning of earlier turns out once a conversation goes on, so those turns "
        "would be trained without it, or behind what no server puts there. Give the assistant's earlier turns "
        "weight: 0, or split such conversations so that each reasoned answer is the last turn",
    ),
    "earlier_turns_rewritten": (
        True,
        "the chat template writes earlier turns otherwise once a conversation goes on, so later answers would be "
        "trained behind what no server puts there. Split such conversations so that each has one answer, or use a "
        "template whose output only grows with the messages",
    ),
    "header_trained": (
        True,
        "the generation block of the chat template is around the header of the assistant's turn too, so the header "
        "carries loss: the model would learn to write what the server writes. Begin {% generation %} behind it",
    ),
    "think_opened": (
        True,
        "the chat template's generation prompt opens a <think> block that the answers of these rows do not have: "
        "served, every answer would begin inside of a thought that it never learned to end. Give the rows "
        "reasoning_content, or use a template whose generation prompt ends with the header",
    ),
    "answer_untrained": (
        True,
        "the chat template marks an answer in part or not at all: what stands outside of its generation block carries "
        "no loss and would never be learned. Write one {% generation %} block around all that the assistant says in "
        "each turn",
    ),
    "answer_padded": (
        True,
        "the chat template writes words into an answer that the row does not have (quotes, a label, a remark), and "
        "they carry loss: the model would learn to say them. Write the content alone inside of {% generation %}",
    ),
    "generation_prompt_missing": (
        True,
        "the chat template has no generation prompt (add_generation_prompt does nothing), and the header before an "
        "answer carries no loss: served, the model would have to write it without having learned to. Write the header "
        "where add_generation_prompt is set",
    ),
    "earlier_stop_missing": (
        True,
        "the chat template ends the last answer of a conversation with its stop token, and earlier ones with none: the "
        "model would not learn to stop there. Write the token behind every answer",
    ),
    "stop_shows": (
        True,
        "the token that ends an answer is in the tokenizer, and not as a special one: it would stand in the text of "
        "every answer, in evaluation and for users. Set special to true for it in tokenizer.json (added_tokens), or "
        "name it as eos_token",
    ),
    "answer_stops_early": (
        True,
        "a token that ends an answer stands within answers of these rows, so that the model would be cut off there, in "
        "evaluation and for users. Correct eos_token_id in generation_config.json and config.json, and eos_token in "
        "tokenizer_config.json",
    ),
    "content_rewritten": (
        True,
        "the chat template writes the text of a message otherwise than the row has it (cut, replaced or in other "
        "letters). Use a template that writes content as it is",
    ),
    "tokens_lose_letters": (
        True,
        "the base's tokenizer does not give the letters of these texts back: it is another model's, its normalizer or "
        "its vocabulary was changed, or it does not know the language. What it loses is neither read nor learned. "
        "Copy tokenizer.json again, or use a base that has these letters",
    ),
    "tokens_lose_lines": (
        True,
        "the base's tokenizer does not give the ends of lines back: code, lists and paragraphs would be read and "
        "learned as one line. Look at the normalizer of its tokenizer.json, or use a base that keeps them",
    ),
    "tokens_lose_some_letters": (
        False,
        "the base's tokenizer does not know some letters of these texts (a rare sign): they are not learned",
    ),
    "tokens_lose_spaces": (
        False,
        "the base's tokenizer joins spaces that follow each other: indented code is trained and served without them",
    ),
    "tokens_are_bytes": (
        False,
        "the base's tokenizer makes a token of every byte of these texts: its merges are lost, its normalizer takes "
        "letters apart, or it never saw the language. Rows are several times as long as they need be, and cut so "
        "early. Look at tokenizer.json before max_seq_len",
    ),
    "content_trimmed": (
        False,
        "the chat template trims white space around texts: it is trained and served without it",
    ),
}
"""Each finding: whether it blocks, and its cause with what to do."""
