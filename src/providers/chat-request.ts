/**
 * A chat request of the OpenAI API, read whole, as it is needed to be said in another protocol. What has no place here is
 * refused with its path, and so is every field that the other protocol has no word for: see {@link checkFields}.
 *
 * Fields that only a server has written, and that clients send back with the messages of their history, are left out:
 * `annotations` that are empty, `reasoning_content` and `reasoning` (reasoning is bound to the turn that it was made in),
 * and the `index` of a tool call.
 */
import { isObject } from '../is-object.ts'
import { invalidRequest } from './failures.ts'
import { asObject, asString, isAbsent, type JsonObject, parseObjectText } from './json.ts'

export type ChatMessage =
  | { readonly role: 'system'; readonly texts: readonly string[] }
  | { readonly role: 'user'; readonly parts: readonly ChatPart[] }
  | { readonly role: 'assistant'; readonly texts: readonly string[]; readonly calls: readonly ToolCall[] }
  | { readonly role: 'tool'; readonly callId: string; readonly text: string; readonly param: string }

export type ChatPart =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'image'; readonly mediaType: string; readonly base64: string; readonly param: string }
  | { readonly kind: 'image_url'; readonly url: string; readonly param: string }

export interface ToolCall {
  readonly id: string
  readonly name: string
  readonly arguments: JsonObject
  /** Google's signature of the thoughts behind the call, in the place where its own OpenAI endpoint puts it. */
  readonly thoughtSignature: string
}

export interface Tool {
  readonly name: string
  readonly description: string
  /** JSON Schema; undefined for a function without parameters. */
  readonly parameters: JsonObject | undefined
  readonly strict: boolean
}

export type ToolChoice = 'auto' | 'none' | 'required' | { readonly name: string }

export type ResponseFormat = 'text' | 'json' | { readonly schema: JsonObject }

/** All of a chat that every protocol here can say. */
export interface Chat {
  readonly messages: readonly ChatMessage[]
  readonly tools: readonly Tool[]
  readonly toolChoice: ToolChoice | undefined
  readonly parallelToolCalls: boolean
  readonly stop: readonly string[]
  readonly temperature: number | undefined
  readonly topP: number | undefined
  readonly format: ResponseFormat
}

/** Fields that {@link readChat} and the facts of a request read. */
const readFields = [
  'model',
  'messages',
  'max_tokens',
  'max_completion_tokens',
  'stream',
  'stream_options',
  'tools',
  'tool_choice',
  'parallel_tool_calls',
  'stop',
  'temperature',
  'top_p',
  'response_format',
]

/** Values that ask for what happens anyhow. */
const neutral: Readonly<Record<string, readonly unknown[]>> = {
  n: [1],
  frequency_penalty: [0],
  presence_penalty: [0],
  logprobs: [false],
  top_logprobs: [0],
  store: [false],
  service_tier: ['auto'],
  verbosity: ['medium'],
}

/** Throws INVALID_ARGUMENT naming the first field that is neither read nor in `more` and asks for something. */
export function checkFields(body: JsonObject, more: readonly string[]): void {
  for (const [name, value] of Object.entries(body)) {
    if (isAbsent(value) || readFields.includes(name) || more.includes(name)) continue
    if (neutral[name]?.includes(value) || isEmpty(value) || isTextModality(name, value)) continue
    throw invalidRequest(name, 'cannot be translated into the protocol of this service')
  }
}

/** Reads a chat; throws INVALID_ARGUMENT naming the field for what is not as the OpenAI API has it. */
export function readChat(body: JsonObject): Chat {
  const messages = list(body.messages, 'messages').map((message, index) => readMessage(message, `messages[${index}]`))
  if (messages.length === 0) throw invalidRequest('messages', 'must not be empty')
  return {
    messages,
    tools: list(body.tools, 'tools').map((tool, index) => readTool(tool, `tools[${index}]`)),
    toolChoice: readToolChoice(body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls !== false,
    stop: typeof body.stop === 'string' ? [body.stop] : list(body.stop, 'stop').map(toText('stop')),
    temperature: readNumber(body, 'temperature', 2),
    topP: readNumber(body, 'top_p', 1),
    format: readFormat(body.response_format),
  }
}

function readMessage(value: unknown, param: string): ChatMessage {
  const message = object(value, param)
  const { role, content } = message
  const at = `${param}.content`
  switch (role) {
    case 'system':
    case 'developer':
      only(message, ['role', 'content'], param)
      return { role: 'system', texts: readTexts(content, at) }
    case 'user':
      only(message, ['role', 'content'], param)
      return { role, parts: readParts(content, at) }
    case 'assistant': {
      only(message, ['role', 'content', 'refusal', 'tool_calls', 'reasoning_content', 'reasoning'], param)
      const calls = list(message.tool_calls, `${param}.tool_calls`)
      return {
        role,
        texts: [...(isAbsent(content) ? [] : readTexts(content, at)), asString(message.refusal)].filter(
          (text) => text !== '',
        ),
        calls: calls.map((call, index) => readCall(call, `${param}.tool_calls[${index}]`)),
      }
    }
    case 'tool':
      only(message, ['role', 'content', 'tool_call_id'], param)
      return {
        role,
        callId: text(message.tool_call_id, `${param}.tool_call_id`),
        text: readTexts(content, at).join(''),
        param,
      }
    default:
      throw invalidRequest(`${param}.role`, 'must be system, developer, user, assistant or tool')
  }
}

/** Texts of a content that may hold nothing else. */
function readTexts(content: unknown, param: string): string[] {
  if (typeof content === 'string') return [content]
  return list(content, param, 'must be a text or a list of parts').map((value, index) => {
    const at = `${param}[${index}]`
    const part = object(value, at)
    only(part, ['type', 'text', 'refusal'], at)
    if (part.type === 'refusal') return text(part.refusal, `${at}.refusal`)
    if (part.type !== 'text') throw invalidRequest(at, 'must be a text part')
    return text(part.text, `${at}.text`)
  })
}

function readParts(content: unknown, param: string): ChatPart[] {
  if (typeof content === 'string') return [{ kind: 'text', text: content }]
  return list(content, param, 'must be a text or a list of parts').map((value, index) => {
    const at = `${param}[${index}]`
    const part = object(value, at)
    only(part, ['type', 'text', 'image_url'], at)
    if (part.type === 'text') return { kind: 'text', text: text(part.text, `${at}.text`) }
    if (part.type === 'image_url') return readImage(part.image_url, `${at}.image_url`)
    throw invalidRequest(at, 'must be a part of type text or image_url: others cannot be translated')
  })
}

function readImage(value: unknown, param: string): ChatPart {
  const image = object(value, param)
  only(image, ['url', 'detail'], param)
  if (!isAbsent(image.detail) && image.detail !== 'auto') {
    throw invalidRequest(`${param}.detail`, 'cannot be translated into the protocol of this service')
  }
  const url = text(image.url, `${param}.url`)
  const [, mediaType, base64] = /^data:([\w.+-]+\/[\w.+-]+);base64,(.*)$/s.exec(url) ?? []
  if (mediaType !== undefined && base64 !== undefined)
    return { kind: 'image', mediaType, base64, param: `${param}.url` }
  if (/^https?:\/\//.test(url)) return { kind: 'image_url', url, param: `${param}.url` }
  throw invalidRequest(`${param}.url`, 'must be a base64 data URL, or an http or https URL')
}

function readCall(value: unknown, param: string): ToolCall {
  const call = object(value, param)
  only(call, ['id', 'type', 'index', 'function', 'extra_content'], param)
  if (call.type !== 'function') throw invalidRequest(`${param}.type`, 'must be function: others cannot be translated')
  const called = object(call.function, `${param}.function`)
  const json = text(called.arguments, `${param}.function.arguments`)
  const parsed = json.trim() === '' ? {} : parseObjectText(json)
  if (parsed === undefined) throw invalidRequest(`${param}.function.arguments`, 'must be a JSON object')
  return {
    id: text(call.id, `${param}.id`),
    name: text(called.name, `${param}.function.name`),
    arguments: parsed,
    thoughtSignature: asString(asObject(asObject(call.extra_content)?.google)?.thought_signature),
  }
}

function readTool(value: unknown, param: string): Tool {
  const tool = object(value, param)
  only(tool, ['type', 'function'], param)
  if (tool.type !== 'function') throw invalidRequest(`${param}.type`, 'must be function: others cannot be translated')
  const { name, description, parameters, strict, ...others } = object(tool.function, `${param}.function`)
  only(others, [], `${param}.function`)
  return {
    name: text(name, `${param}.function.name`),
    description: isAbsent(description) ? '' : text(description, `${param}.function.description`),
    parameters: isAbsent(parameters) ? undefined : object(parameters, `${param}.function.parameters`),
    strict: strict === true,
  }
}

function readToolChoice(value: unknown): ToolChoice | undefined {
  if (isAbsent(value)) return undefined
  if (value === 'auto' || value === 'none' || value === 'required') return value
  const name = isObject(value) && value.type === 'function' ? asObject(value.function)?.name : undefined
  if (typeof name === 'string') return { name }
  throw invalidRequest('tool_choice', 'must be auto, none, required or a function: others cannot be translated')
}

/** A schema's name and description are labels of the OpenAI API; `strict: false` asks for less than others give. */
function readFormat(value: unknown): ResponseFormat {
  if (isAbsent(value)) return 'text'
  const format = object(value, 'response_format')
  if (format.type === 'text') return 'text'
  if (format.type === 'json_object') return 'json'
  if (format.type !== 'json_schema')
    throw invalidRequest('response_format.type', 'must be text, json_object or json_schema')
  const { schema } = object(format.json_schema, 'response_format.json_schema')
  return { schema: object(schema, 'response_format.json_schema.schema') }
}

function readNumber(body: JsonObject, name: string, most: number): number | undefined {
  const value = body[name]
  if (isAbsent(value)) return undefined
  if (typeof value !== 'number' || value < 0 || value > most) throw invalidRequest(name, `must be from 0 to ${most}`)
  return value
}

/** Throws for any other member that asks for something. */
function only(value: JsonObject, names: readonly string[], param: string): void {
  for (const [name, member] of Object.entries(value)) {
    if (names.includes(name) || isAbsent(member) || isEmpty(member)) continue
    throw invalidRequest(`${param}.${name}`, 'cannot be translated into the protocol of this service')
  }
}

function object(value: unknown, param: string): Record<string, unknown> {
  if (isObject(value)) return value
  throw invalidRequest(param, 'must be an object')
}

function list(value: unknown, param: string, description = 'must be a list'): readonly unknown[] {
  if (isAbsent(value) && description === 'must be a list') return []
  if (Array.isArray(value)) return value
  throw invalidRequest(param, description)
}

function text(value: unknown, param: string): string {
  if (typeof value === 'string') return value
  throw invalidRequest(param, 'must be a text')
}

function toText(param: string): (value: unknown) => string {
  return (value) => text(value, param)
}

function isEmpty(value: unknown): boolean {
  return (Array.isArray(value) && value.length === 0) || (isObject(value) && Object.keys(value).length === 0)
}

function isTextModality(name: string, value: unknown): boolean {
  return name === 'modalities' && Array.isArray(value) && value.every((modality) => modality === 'text')
}
