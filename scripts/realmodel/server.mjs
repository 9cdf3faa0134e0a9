// A real, small language model behind an OpenAI-shaped endpoint: the upstream
// for what a mock cannot show (real tokens, real timing, real cancellation).
// For trying out only: one model, loopback, no authentication.
//
//   node server.mjs MODEL.gguf PORT
import http from 'node:http';
import { getLlama, LlamaCompletion } from 'node-llama-cpp';

const [file, port] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ contextSize: 512, sequences: 4, threads: 1 });

const counted = (input, output) => ({ prompt_tokens: input, completion_tokens: output, total_tokens: input + output });

async function body(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString() || '{}');
}

// generate runs the model over the request's messages; every piece of text goes to onText.
async function generate(ask, signal, onText) {
  const prompt = (ask.messages ?? []).map((m) => m.content).join('\n');
  const sequence = context.getSequence();
  try {
    let output = 0;
    const text = await new LlamaCompletion({ contextSequence: sequence }).generateCompletion(prompt, {
      maxTokens: ask.max_completion_tokens ?? ask.max_tokens ?? 64,
      temperature: ask.temperature ?? 0,
      signal, onTextChunk: onText, onToken: (tokens) => { output += tokens.length; },
    });
    return { text, usage: counted(model.tokenize(prompt).length, output) };
  } finally {
    sequence.dispose();
  }
}

async function answer(req, res) {
  const ask = await body(req);
  const gone = new AbortController();
  res.on('close', () => gone.abort());
  const head = { id: `chatcmpl-${Date.now()}`, created: Math.floor(Date.now() / 1000), model: ask.model };
  if (!ask.stream) {
    const { text, usage } = await generate(ask, gone.signal);
    const message = { role: 'assistant', content: text };
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ ...head, object: 'chat.completion', choices: [{ index: 0, message, finish_reason: 'length' }], usage }));
    return;
  }
  const event = (choices, more) => res.write(`data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', choices, ...more })}\n\n`);
  res.writeHead(200, { 'content-type': 'text/event-stream' });
  event([{ index: 0, delta: { role: 'assistant' }, finish_reason: null }]);
  const { usage } = await generate(ask, gone.signal, (content) => event([{ index: 0, delta: { content }, finish_reason: null }]));
  event([{ index: 0, delta: {}, finish_reason: 'length' }]);
  if (ask.stream_options?.include_usage) event([], { usage });
  res.end('data: [DONE]\n\n');
}

http.createServer((req, res) => answer(req, res).catch((err) => {
  if (!res.headersSent) res.statusCode = 500;
  res.end(JSON.stringify({ error: { message: String(err), type: 'server_error' } }));
})).listen(Number(port), '127.0.0.1', () => console.log('ready'));
