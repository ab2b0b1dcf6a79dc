import { join } from 'node:path'
import OpenAI, { APIError } from 'openai'
import { type Json, list, parseJson } from '../../support/json.ts'
import { pythonWithOpenAi, run } from '../../support/tools.ts'

/** One call of an SDK. */
export type Step = (
  | { readonly do: 'chat'; readonly body: OpenAI.ChatCompletionCreateParamsNonStreaming }
  | { readonly do: 'stream'; readonly body: Omit<OpenAI.ChatCompletionCreateParamsStreaming, 'stream'> }
  | { readonly do: 'completion'; readonly body: OpenAI.CompletionCreateParamsNonStreaming }
  | { readonly do: 'embedding'; readonly body: OpenAI.EmbeddingCreateParams }
  | { readonly do: 'models' }
  | { readonly do: 'model'; readonly body: { readonly model: string } }
) & {
  readonly key: string
  readonly headers?: Readonly<Record<string, string>>
  /** Default the SDK's own, which is 2. */
  readonly maxRetries?: number
}

/** Takes steps one after the other; of each, `answer` and `headers`, or `error`, or `chunks` and perhaps `error`. */
export type Driver = (address: string, steps: readonly Step[]) => Promise<readonly Json[]>

/** OpenAI's SDKs, unchanged but for base URL and key. */
export const sdks: Readonly<Record<'Python' | 'Node', Driver>> = {
  async Python(address, steps) {
    const env = { BASE_URL: `${address}/v1`, STEPS: JSON.stringify(steps), PYTHONDONTWRITEBYTECODE: '1' }
    const python = await pythonWithOpenAi()
    const { code, stdout, stderr } = await run(python, [join(import.meta.dirname, 'driver.py')], { env })
    if (code !== 0) throw new Error(`driver.py ended with ${code}:\n${stderr}${stdout}`)
    return list(parseJson(stdout))
  },

  async Node(address, steps) {
    const told: unknown[] = []
    for (const step of steps) {
      const { key, headers, maxRetries } = step
      const client = new OpenAI({
        baseURL: `${address}/v1`,
        apiKey: key,
        ...(maxRetries === undefined ? {} : { maxRetries }),
      })
      told.push(await take(client, step, headers === undefined ? {} : { headers }))
    }
    return list(parseJson(JSON.stringify(told)))
  },
}

async function take(client: OpenAI, step: Step, options: OpenAI.RequestOptions): Promise<unknown> {
  const chunks: unknown[] = []
  try {
    switch (step.do) {
      case 'chat':
        return answer(await client.chat.completions.create(step.body, options).withResponse())
      case 'completion':
        return answer(await client.completions.create(step.body, options).withResponse())
      case 'embedding':
        return answer(await client.embeddings.create(step.body, options).withResponse())
      case 'models': {
        const { data: page, response } = await client.models.list(options).withResponse()
        return answer({ data: { object: page.object, data: page.data }, response })
      }
      case 'model':
        return answer(await client.models.retrieve(step.body.model, options).withResponse())
      case 'stream':
        for await (const chunk of await client.chat.completions.create({ ...step.body, stream: true }, options)) {
          chunks.push(chunk)
        }
        return { chunks }
    }
  } catch (error) {
    if (!(error instanceof APIError)) throw error
    return step.do === 'stream' ? { chunks, error: describe(error) } : { error: describe(error) }
  }
}

function answer({ data, response }: { readonly data: unknown; readonly response: Response }): unknown {
  return { answer: data, headers: Object.fromEntries(response.headers) }
}

function describe(error: APIError): unknown {
  const { status, requestID, type, param, code } = error
  return {
    name: error.constructor.name,
    status: status ?? null,
    requestId: requestID ?? null,
    message: error.message,
    type: type ?? null,
    param: param ?? null,
    code: code ?? null,
    headers: Object.fromEntries(error.headers ?? []),
  }
}
