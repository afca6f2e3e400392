"use strict";
window.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("chat"), words = box.dataset, log = document.getElementById("conversation");
  const message = document.getElementById("message"), send = document.getElementById("send"), halt = document.getElementById("halt");
  const at = "/llm-ops/v1/serve/" + encodeURIComponent(words.endpoint);
  let messages = [], running = null, session = null;
  function begin() { messages = []; log.replaceChildren(); session = "console-" + crypto.getRandomValues(new Uint32Array(3)).join("-"); }
  function element(tag, name, text) { const node = document.createElement(tag); if (name) node.className = name; if (text !== undefined) node.textContent = text; return node; }
  function turn(role, text) {
    const node = element("article", "turn " + role), body = element("div", "text", text);
    node.append(element("h2", "hidden-text", role === "user" ? words.you : words.model), body);
    log.append(node); node.scrollIntoView({ block: "nearest" });
    return { node, body };
  }
  function fault(text) { const node = element("div", "banner bad", text); node.setAttribute("role", "alert"); log.append(node); node.scrollIntoView({ block: "nearest" }); }
  async function reason(response) {
    try { const body = await response.json(); return body.detail || (body.error && body.error.message) || response.statusText; } catch { return response.status + " " + response.statusText; }
  }
  function post(path, body, signal) {
    return fetch(at + path, { method: "POST", signal, headers: { "Content-Type": "application/json", "X-Session-Id": session }, body: JSON.stringify(body) });
  }
  function rating(node, request) {
    const set = element("fieldset", "rate");
    set.append(element("legend", "", words.rate));
    for (let value = 1; value <= 5; value++) {
      const button = element("button", "", String(value));
      button.type = "button"; button.setAttribute("aria-pressed", "false"); button.setAttribute("aria-label", value + " " + words.of);
      button.addEventListener("click", async () => {
        let response;
        try { response = await post("/feedback", { request_id: request, rating: value, user: session }); } catch { fault(words.away); return; }
        if (!response.ok) { fault(await reason(response)); return; }
        for (const other of set.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
        let note = set.querySelector(".note");
        if (!note) { note = element("span", "note"); note.setAttribute("role", "status"); set.append(note); }
        note.textContent = words.rated;
      });
      set.append(button);
    }
    node.append(set);
  }
  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
  async function ask(text) {
    turn("user", text); messages.push({ role: "user", content: text });
    const answer = turn("assistant", "");
    running = new AbortController(); send.hidden = true; halt.hidden = false; halt.focus();
    let content = "", ended = false, request = null, note = "";
    try {
      const response = await post("/chat", { messages, stream: true, user: session }, running.signal);
      request = response.headers.get("x-request-id");
      if (!response.ok) { fault(await reason(response)); ended = true; }
      else for await (const data of events(response.body)) {
        if (data === "[DONE]") { ended = true; continue; }
        const chunk = JSON.parse(data);
        if (chunk.error) { fault(chunk.error.message || String(chunk.error)); break; }
        const choice = chunk.choices && chunk.choices[0];
        if (choice && choice.delta && choice.delta.content) { content += choice.delta.content; answer.body.textContent = content; }
        if (choice && choice.finish_reason) ended = true;
      }
      if (!ended) note = words.broke;
    } catch (error) { if (error.name === "AbortError") note = words.stopped; else fault(words.away); }
    running = null; send.hidden = false; halt.hidden = true; message.focus();
    if (content) messages.push({ role: "assistant", content }); else { messages.pop(); answer.node.remove(); }
    if (note && content) answer.node.append(element("div", "note", note));
    if (content && request && ended) rating(answer.node, request);
    log.lastElementChild && log.lastElementChild.scrollIntoView({ block: "nearest" });
  }
  document.getElementById("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = message.value.trim();
    if (!text || running) return;
    message.value = ""; ask(text);
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); document.getElementById("ask").requestSubmit(); }
  });
  halt.addEventListener("click", () => running && running.abort());
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running) running.abort(); });
  document.getElementById("fresh").addEventListener("click", () => { if (running) running.abort(); begin(); message.focus(); });
  begin(); message.focus();
});
