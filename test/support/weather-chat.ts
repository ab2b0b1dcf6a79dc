/** One conversation with a tool call, an image and a system prompt, in each API as its own documentation has it. */
import type OpenAI from 'openai'
import { anthropicModel, readAnthropic } from './anthropic-server.ts'
import { readGemini } from './gemini-server.ts'
import type { Json } from './json.ts'

const system = 'You tell the weather.'
const question = 'What is the weather in the city of this picture?'
const picture = { type: 'image/png', data: 'aGVsbG8=' }
const description = 'Weather of a city.'
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const called = { text: 'Let me look.', name: 'get_weather', city: 'Zürich', weather: '{"celsius":21}' }

/** What a turn says, in whatever API: text, and calls of functions with their arguments. */
export interface Said {
  readonly text: string
  readonly calls: readonly Json[]
}

/** What the model answers to each of the two requests. */
export const expectedSaid: readonly Said[] = [
  { text: called.text, calls: [{ name: called.name, arguments: { city: called.city } }] },
  { text: 'It is 21 °C in Zürich.', calls: [] },
]

/** The native side of a conversation. */
export interface NativeChat {
  /** The first request; the second one, which has the answer to the first and the tool's result. */
  readonly requests: readonly [Json, Json]
  read(documents: readonly Json[]): Said
}

export const anthropicChat: NativeChat = {
  requests: [anthropicRequest([]), anthropicRequest(anthropicHistory())],
  read: readAnthropic,
}

function anthropicRequest(history: readonly Json[]): Json {
  const source = { type: 'base64', media_type: picture.type, data: picture.data }
  const content = [
    { type: 'text', text: question },
    { type: 'image', source },
  ]
  return {
    model: anthropicModel,
    max_tokens: 300,
    system: [{ type: 'text', text: system }],
    messages: [{ role: 'user', content }, ...history],
    tools: [{ name: called.name, description, input_schema: parameters }],
    temperature: 0.5,
    stop_sequences: ['END'],
  }
}

function anthropicHistory(): Json[] {
  const { text, name, city, weather } = called
  const blocks = [
    { type: 'text', text },
    { type: 'tool_use', id: 'toolu_1', name, input: { city } },
  ]
  return [
    { role: 'assistant', content: blocks },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: weather }] },
  ]
}

export const geminiChat: NativeChat = {
  requests: [geminiRequest([]), geminiRequest(geminiHistory())],
  read: readGemini,
}

function geminiRequest(history: readonly Json[]): Json {
  const inlineData = { mimeType: picture.type, data: picture.data }
  return {
    systemInstruction: { parts: [{ text: system }] },
    contents: [{ role: 'user', parts: [{ text: question }, { inlineData }] }, ...history],
    tools: [{ functionDeclarations: [{ name: called.name, description, parametersJsonSchema: parameters }] }],
    generationConfig: { maxOutputTokens: 300, temperature: 0.5, stopSequences: ['END'] },
  }
}

function geminiHistory(): Json[] {
  const { text, name, city, weather } = called
  const functionCall = { functionCall: { name, args: { city } }, thoughtSignature: 'c2lnbmF0dXJl' }
  return [
    { role: 'model', parts: [{ text }, functionCall] },
    { role: 'user', parts: [{ functionResponse: { name, response: { output: weather } } }] },
  ]
}

type Message = OpenAI.ChatCompletionMessageParam

/** The same for callers of the OpenAI API; `history` as {@link openAiHistory} makes it of the first answer. */
export function openAiRequest(
  model: string,
  history: readonly Message[],
): OpenAI.ChatCompletionCreateParamsNonStreaming {
  const url = `data:${picture.type};base64,${picture.data}`
  const content = [
    { type: 'text' as const, text: question },
    { type: 'image_url' as const, image_url: { url } },
  ]
  return {
    model,
    messages: [{ role: 'system', content: system }, { role: 'user', content }, ...history],
    tools: [{ type: 'function', function: { name: called.name, description, parameters } }],
    max_completion_tokens: 300,
    temperature: 0.5,
    stop: ['END'],
  }
}

/** The model's own message as it came, and the result of the tool that it calls. */
export function openAiHistory(answer: OpenAI.ChatCompletionMessage): Message[] {
  const [call] = answer.tool_calls ?? []
  if (call === undefined) throw new Error(`no tool is called by ${JSON.stringify(answer)}`)
  return [answer, { role: 'tool', tool_call_id: call.id, content: called.weather }]
}

/** A message as a stream says it: what the SDK's own helpers would make of its chunks. */
export function joinChunks(chunks: readonly OpenAI.ChatCompletionChunk[]): {
  message: OpenAI.ChatCompletionMessage
  finish: string | null
  usage: OpenAI.CompletionUsage | undefined
} {
  let content = ''
  let finish: string | null = null
  let usage: OpenAI.CompletionUsage | undefined
  const calls: OpenAI.ChatCompletionMessageFunctionToolCall[] = []
  for (const chunk of chunks) {
    usage = chunk.usage ?? usage
    for (const { delta, finish_reason } of chunk.choices) {
      content += delta.content ?? ''
      finish = finish_reason ?? finish
      for (const { index, id, function: part, ...more } of delta.tool_calls ?? []) {
        const call = calls[index] ?? { ...more, id: id ?? '', type: 'function', function: { name: '', arguments: '' } }
        call.function.name += part?.name ?? ''
        call.function.arguments += part?.arguments ?? ''
        calls[index] = call
      }
    }
  }
  const toolCalls = calls.length === 0 ? {} : { tool_calls: calls }
  return { message: { role: 'assistant', content, refusal: null, ...toolCalls }, finish, usage }
}

/** What a message of the OpenAI API says. */
export function readOpenAi({ content, tool_calls: calls = [] }: OpenAI.ChatCompletionMessage): Said {
  const functions = calls.flatMap((call) => (call.type === 'function' ? [call.function] : []))
  return {
    text: content ?? '',
    calls: functions.map(({ name, arguments: text }) => ({ name, arguments: JSON.parse(text) })),
  }
}
