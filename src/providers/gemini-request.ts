/**
 * Chats of the OpenAI API as requests of the Gemini API (https://ai.google.dev/api/generate-content).
 * docs/providers.md has the table of what becomes what.
 */
import {
  type Chat,
  type ChatMessage,
  type ChatPart,
  checkFields,
  readChat,
  type ToolCall,
  type ToolChoice,
} from './chat-request.ts'
import { invalidRequest } from './failures.ts'
import { isAbsent, type JsonObject } from './json.ts'

/** Fields that mean something here beside those of every chat. */
const ownFields = ['n', 'seed', 'presence_penalty', 'frequency_penalty']

/** Ids of tool calls that the Gemini API gave no id to begin like this; they mean nothing to it. */
export const madeUpId = 'call_gate_'

/** The request; the model is part of its address. Throws INVALID_ARGUMENT naming the field for what cannot be said. */
export function toGemini(body: JsonObject, maxTokens: number | undefined): JsonObject {
  checkFields(body, ownFields)
  const chat = readChat(body)
  if (!chat.parallelToolCalls) throw invalidRequest('parallel_tool_calls', 'cannot be false for this service')
  const system = chat.messages.flatMap((message) => (message.role === 'system' ? message.texts : []))
  const generationConfig = writeConfig(chat, body, maxTokens)
  return {
    ...(system.length === 0 ? {} : { systemInstruction: { parts: system.map(textPart) } }),
    contents: writeContents(chat.messages),
    ...writeTools(chat),
    ...(Object.keys(generationConfig).length === 0 ? {} : { generationConfig }),
  }
}

/**
 * System messages stand apart; one in the middle of a conversation has no place. The results of one turn's calls are one
 * turn, and nothing else is in it.
 */
function writeContents(messages: readonly ChatMessage[]): JsonObject[] {
  const contents: { role: 'user' | 'model'; parts: JsonObject[] }[] = []
  const calls = new Map<string, ToolCall>()
  let previous: ChatMessage['role'] | undefined
  for (const [index, message] of messages.entries()) {
    if (message.role === 'system') {
      if (contents.length === 0) continue
      throw invalidRequest(`messages[${index}].role`, 'cannot be system after the first turn for this service')
    }
    const role = message.role === 'assistant' ? 'model' : 'user'
    const parts = writeParts(message, calls)
    const last = contents.at(-1)
    if (previous === 'tool' && message.role === 'tool' && last !== undefined) last.parts.push(...parts)
    else if (parts.length > 0) contents.push({ role, parts })
    previous = message.role
  }
  return contents
}

function writeParts(message: Exclude<ChatMessage, { role: 'system' }>, calls: Map<string, ToolCall>): JsonObject[] {
  switch (message.role) {
    case 'user':
      return message.parts.map(writePart)
    case 'assistant':
      for (const call of message.calls) calls.set(call.id, call)
      return [...message.texts.map(textPart), ...message.calls.map(writeCall)]
    case 'tool': {
      const call = calls.get(message.callId)
      if (call === undefined)
        throw invalidRequest(`${message.param}.tool_call_id`, 'must be the id of a call before it')
      return [{ functionResponse: { ...idOf(call), name: call.name, response: { output: message.text } } }]
    }
  }
}

function textPart(text: string): JsonObject {
  return { text }
}

function writeCall(call: ToolCall): JsonObject {
  return {
    functionCall: { ...idOf(call), name: call.name, args: call.arguments },
    ...(call.thoughtSignature === '' ? {} : { thoughtSignature: call.thoughtSignature }),
  }
}

function idOf({ id }: ToolCall): JsonObject {
  return id.startsWith(madeUpId) ? {} : { id }
}

function writePart(part: ChatPart): JsonObject {
  if (part.kind === 'text') return textPart(part.text)
  if (part.kind === 'image') return { inlineData: { mimeType: part.mediaType, data: part.base64 } }
  return { fileData: { mimeType: mediaTypeOf(part.url, part.param), fileUri: part.url } }
}

/** By the file's ending: the Gemini API wants to be told, and a URL says nothing else. */
const mediaTypes: Readonly<Record<string, string>> = {
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  webp: 'image/webp',
  heic: 'image/heic',
  heif: 'image/heif',
}

function mediaTypeOf(url: string, param: string): string {
  const ending = /^https:\/\/[^?#]*\.([a-z]+)(?:[?#]|$)/i.exec(url)?.[1]?.toLowerCase() ?? ''
  const type = mediaTypes[ending]
  if (type !== undefined) return type
  const endings = Object.keys(mediaTypes).join(', ')
  throw invalidRequest(param, `must be a data URL, or an https URL that ends in ${endings}, for this service`)
}

function writeTools(chat: Chat): JsonObject {
  if (chat.tools.length === 0) {
    if (chat.toolChoice === undefined || chat.toolChoice === 'auto' || chat.toolChoice === 'none') return {}
    throw invalidRequest('tool_choice', 'needs tools')
  }
  const functionDeclarations = chat.tools.map(({ name, description, parameters }) => ({
    name,
    ...(description === '' ? {} : { description }),
    ...(parameters === undefined ? {} : { parametersJsonSchema: parameters }),
  }))
  const config = writeToolChoice(
    chat.toolChoice,
    chat.tools.some(({ strict }) => strict),
  )
  return {
    tools: [{ functionDeclarations }],
    ...(config === undefined ? {} : { toolConfig: { functionCallingConfig: config } }),
  }
}

/** `ANY` and `VALIDATED` hold calls to their schemas, which is what `strict` asks for. */
function writeToolChoice(choice: ToolChoice | undefined, isStrict: boolean): JsonObject | undefined {
  if (choice === undefined) return isStrict ? { mode: 'VALIDATED' } : undefined
  if (choice === 'none') return { mode: 'NONE' }
  if (choice === 'auto') return { mode: isStrict ? 'VALIDATED' : 'AUTO' }
  if (choice === 'required') return { mode: 'ANY' }
  return { mode: 'ANY', allowedFunctionNames: [choice.name] }
}

function writeConfig(chat: Chat, body: JsonObject, maxTokens: number | undefined): JsonObject {
  const { format } = chat
  return defined({
    maxOutputTokens: maxTokens,
    temperature: chat.temperature,
    topP: chat.topP,
    stopSequences: chat.stop.length === 0 ? undefined : chat.stop,
    candidateCount: body.n === 1 ? undefined : numberOf(body, 'n'),
    seed: numberOf(body, 'seed'),
    presencePenalty: numberOf(body, 'presence_penalty'),
    frequencyPenalty: numberOf(body, 'frequency_penalty'),
    responseMimeType: format === 'text' ? undefined : 'application/json',
    responseJsonSchema: typeof format === 'object' ? format.schema : undefined,
  })
}

function numberOf(body: JsonObject, name: string): number | undefined {
  const value = body[name]
  if (isAbsent(value)) return undefined
  if (typeof value !== 'number') throw invalidRequest(name, 'must be a number')
  return value
}

function defined(members: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined))
}
