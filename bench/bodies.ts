/**
 * What a provider's work on a body costs: `node bench/bodies.ts`, about a minute. Microseconds of CPU of one thread, the
 * least of six rounds, for chats and embeddings of the OpenAI API of 1 to 256 KiB.
 */
import { parseObject } from '../src/providers/json.ts'
import { setMember } from '../src/providers/json-edit.ts'
import { createProvider } from '../src/providers/providers.ts'
import { skim, skimObject } from '../src/providers/skim.ts'

const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
const target = { url: 'http://127.0.0.1:8000/v1', model: 'backend-model', credential: 'k' }
const usage = { prompt_tokens: 21, completion_tokens: 9, total_tokens: 30, prompt_tokens_details: { cached_tokens: 8 } }

const system = { role: 'system', content: 'You answer in one short sentence.' }

/** What the texts are made of. */
const sentences = {
  English: 'A gate that counts every call knows what each of them was worth.\n',
  'English, “quoted”': 'A gate that “counts” every call knows what each of them was worth.\n',
  code: 'if (a["key"] === "x") return b["y"]\n',
}

console.log(
  '| body | bytes | parse all | skim | read the request | of one parsed before | model exchanged | by a walk |',
)
console.log('|---|---:|---:|---:|---:|---:|---:|---:|')
for (const kib of [1, 4, 8, 16, 256]) {
  for (const [name, sentence] of Object.entries(sentences)) {
    const text = sentence.repeat(
      Math.max(1, Math.floor((kib * 1024 - 500) / Buffer.byteLength(JSON.stringify(sentence)))),
    )
    const message = { role: 'assistant', content: text }
    const answer = toBytes({ id: 'c', model: 'm', choices: [{ index: 0, message, finish_reason: 'stop' }], usage })
    measure(
      name,
      'chat',
      answer,
      toBytes({ model: 'bench', messages: [system, { role: 'user', content: text }], max_tokens: 32 }),
    )
  }
  const embedding = Array.from({ length: kib * 50 }, (_, at) => Math.sin(at))
  const answer = toBytes({ object: 'list', data: [{ index: 0, embedding }], model: 'm', usage })
  measure('vector', 'embedding', answer, toBytes({ model: 'bench', input: 'a' }))
}

function measure(name: string, kind: 'chat' | 'embedding', answer: Buffer, payload: Buffer): void {
  const asked = { payload, mode: 'unary', dialect: 'openai', kind, startMs: 0 } as const
  const request = openai.readRequest(asked)
  const parsed = skim(payload)
  const figures = [
    costUs(() => parseObject(answer)),
    costUs(() => skimObject(answer)),
    costUs(() => openai.readRequest(asked)),
    costUs(() => openai.readRequest({ ...asked, parsed })),
    costUs(() => openai.prepare(request, target)),
    costUs(() => setMember(payload, ['model'], '"backend-model"')),
  ]
  console.log(`| ${[name, answer.length, ...figures.map((us) => us.toFixed(1))].join(' | ')} |`)
}

function toBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}

/** The clock of a thread ticks in milliseconds, so a round is at least twenty of them. */
function costUs(work: () => unknown): number {
  let least = Number.POSITIVE_INFINITY
  for (let round = 0, times = 64; round < 6; ) {
    const before = process.threadCpuUsage()
    for (let time = 0; time < times; time += 1) work()
    const { user, system } = process.threadCpuUsage(before)
    if (user + system < 20_000) times *= 2
    else {
      least = Math.min(least, (user + system) / times)
      round += 1
    }
  }
  return least
}
