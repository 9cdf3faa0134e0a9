// The story of the npm openai client: every call a user makes, through a node
// given by BASE_URL and KEY. FULL_KEY belongs to a tenant whose day is full.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.KEY, maxRetries: 0 });
const messages = [{ role: 'user', content: '[[up in=11 out=7]] hello' }];

const plain = await client.chat.completions.create({ model: 'model', messages });
assert.equal(plain.choices[0].message.content, 'answer');
assert.deepEqual(plain.choices[0].message.tool_calls[0].x_vendor, { a: 1.5 });
assert.equal(plain.usage.total_tokens, 18);
assert.match(plain._request_id, /^req_/);

for (const usage of [false, true]) {
  const stream = await client.chat.completions.create({
    model: 'model', messages, stream: true, ...(usage ? { stream_options: { include_usage: true } } : {}),
  });
  let text = '', total = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    total += chunk.usage?.total_tokens ?? 0;
  }
  assert.equal(text, 'piece0 piece1 piece2 piece3 ');
  assert.equal(total, usage ? 18 : 0);
}

// The helper is stricter than the plain iterator: it wants roles and finish reasons.
const final = await client.chat.completions.stream({ model: 'model', messages }).finalChatCompletion();
assert.equal(final.choices[0].message.content, 'piece0 piece1 piece2 piece3 ');

const completion = await client.completions.create({ model: 'model', prompt: 'say' });
assert.equal(completion.choices[0].text, 'answer');

// This client asks for base64 unless told otherwise, and decodes it.
const decoded = await client.embeddings.create({ model: 'model', input: 'text' });
assert.deepEqual([...decoded.data[0].embedding], [0.5, -0.25, 1]);
const floats = await client.embeddings.create({ model: 'model', input: 'text', encoding_format: 'float' });
assert.deepEqual(floats.data[0].embedding, [0.5, -0.25, 1]);

const response = await client.responses.create({ model: 'model', input: 'hello' });
assert.equal(response.output_text, 'answer');
const types = [];
for await (const event of await client.responses.create({ model: 'model', input: 'hello', stream: true })) types.push(event.type);
assert.deepEqual(types, ['response.created', 'response.output_text.delta', 'response.completed']);

const models = await client.models.list();
assert.deepEqual(models.data.map((m) => m.id), ['echo', 'model']);

await assert.rejects(client.chat.completions.create({ model: 'nowhere', messages }), (e) => {
  assert.ok(e instanceof OpenAI.NotFoundError);
  assert.equal(e.code, 'model_not_found');
  assert.match(e.requestID, /^req_/);
  return true;
});

const wrong = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: 'bh_wrong', maxRetries: 0 });
await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);

// With its default of two retries: a full day must not be asked again.
const full = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.FULL_KEY });
await assert.rejects(full.chat.completions.create({ model: 'model', messages }), (e) => {
  assert.ok(e instanceof OpenAI.RateLimitError);
  assert.equal(e.type, 'insufficient_quota');
  return true;
});
