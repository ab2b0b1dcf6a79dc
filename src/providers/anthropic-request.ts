/**
 * Chats of the OpenAI API as requests of Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages).
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
const ownFields = ['user', 'safety_identifier', 'reasoning_effort', 'service_tier']

/** The request; `maxTokens` is required there. Throws INVALID_ARGUMENT naming the field for what cannot be said. */
export function toAnthropic(body: JsonObject, maxTokens: number, isStream: boolean): JsonObject {
  checkFields(body, ownFields)
  const chat = readChat(body)
  const firstTurn = chat.messages.findIndex(({ role }) => role !== 'system')
  const leading = firstTurn < 0 ? chat.messages : chat.messages.slice(0, firstTurn)
  const system = leading.flatMap((message) => (message.role === 'system' ? message.texts : []))
  return {
    ...(isAbsent(body.model) ? {} : { model: body.model }),
    max_tokens: maxTokens,
    ...(system.length === 0 ? {} : { system: system.map(textBlock) }),
    messages: writeMessages(chat.messages.slice(leading.length)),
    ...writeTools(chat),
    ...(chat.stop.length === 0 ? {} : { stop_sequences: chat.stop }),
    ...(chat.temperature === undefined ? {} : { temperature: checkTemperature(chat.temperature) }),
    ...(chat.topP === undefined ? {} : { top_p: chat.topP }),
    ...writeOutputConfig(chat, body),
    ...writeUser(body),
    ...writeServiceTier(body.service_tier),
    ...(isStream ? { stream: true } : {}),
  }
}

/** Results of tools are turns of the user, and come first in them: those that follow each other become one turn. */
function writeMessages(messages: readonly ChatMessage[]): JsonObject[] {
  const written: { role: string; content: JsonObject[] }[] = []
  let previous: ChatMessage['role'] | undefined
  for (const message of messages) {
    const role = message.role === 'tool' ? 'user' : message.role
    const content = writeContent(message)
    const last = written.at(-1)
    if (previous === 'tool' && role === 'user' && last !== undefined) last.content.push(...content)
    else if (content.length > 0) written.push({ role, content })
    previous = message.role
  }
  return written
}

function writeContent(message: ChatMessage): JsonObject[] {
  switch (message.role) {
    case 'system':
      return message.texts.map(textBlock)
    case 'user':
      return message.parts.map(writePart)
    case 'assistant':
      return [...message.texts.map(textBlock), ...message.calls.map(writeToolUse)]
    case 'tool':
      return [{ type: 'tool_result', tool_use_id: message.callId, content: message.text }]
  }
}

function textBlock(text: string): JsonObject {
  return { type: 'text', text }
}

function writeToolUse(call: ToolCall): JsonObject {
  return { type: 'tool_use', id: call.id, name: call.name, input: call.arguments }
}

const imageTypes = ['image/jpeg', 'image/png', 'image/gif', 'image/webp']

function writePart(part: ChatPart): JsonObject {
  if (part.kind === 'text') return textBlock(part.text)
  if (part.kind === 'image_url') return { type: 'image', source: { type: 'url', url: part.url } }
  if (!imageTypes.includes(part.mediaType)) throw invalidRequest(part.param, `must be of type ${imageTypes.join(', ')}`)
  return { type: 'image', source: { type: 'base64', media_type: part.mediaType, data: part.base64 } }
}

function writeTools(chat: Chat): JsonObject {
  if (chat.tools.length === 0) {
    if (chat.toolChoice === undefined || chat.toolChoice === 'auto' || chat.toolChoice === 'none') return {}
    throw invalidRequest('tool_choice', 'needs tools')
  }
  const tools = chat.tools.map(({ name, description, parameters, strict }) => ({
    name,
    ...(description === '' ? {} : { description }),
    input_schema: parameters ?? { type: 'object', properties: {} },
    ...(strict ? { strict } : {}),
  }))
  const choice = writeToolChoice(chat.toolChoice, chat.parallelToolCalls)
  return choice === undefined ? { tools } : { tools, tool_choice: choice }
}

function writeToolChoice(choice: ToolChoice | undefined, isParallel: boolean): JsonObject | undefined {
  if (choice === 'none') return { type: 'none' }
  const serial = isParallel ? {} : { disable_parallel_tool_use: true }
  if (choice === undefined) return isParallel ? undefined : { type: 'auto', ...serial }
  if (choice === 'auto') return { type: 'auto', ...serial }
  if (choice === 'required') return { type: 'any', ...serial }
  return { type: 'tool', name: choice.name, ...serial }
}

function checkTemperature(temperature: number): number {
  if (temperature > 1) throw invalidRequest('temperature', 'must be from 0 to 1 for this service')
  return temperature
}

const efforts: readonly unknown[] = ['low', 'medium', 'high', 'xhigh', 'max']

function writeOutputConfig({ format }: Chat, body: JsonObject): JsonObject {
  if (format === 'json') throw invalidRequest('response_format', 'must be text or json_schema for this service')
  const effort = body.reasoning_effort
  if (!isAbsent(effort) && !efforts.includes(effort)) {
    throw invalidRequest('reasoning_effort', `must be ${efforts.join(', ')} for this service`)
  }
  if (format === 'text' && isAbsent(effort)) return {}
  return {
    output_config: {
      ...(format === 'text' ? {} : { format: { type: 'json_schema', schema: format.schema } }),
      ...(isAbsent(effort) ? {} : { effort }),
    },
  }
}

function writeUser(body: JsonObject): JsonObject {
  const { user, safety_identifier: identifier } = body
  if (!isAbsent(user) && !isAbsent(identifier)) {
    throw invalidRequest('safety_identifier', 'cannot be sent to this service beside user: it takes one of them')
  }
  const id = identifier ?? user
  if (isAbsent(id)) return {}
  if (typeof id !== 'string') throw invalidRequest(isAbsent(user) ? 'safety_identifier' : 'user', 'must be a text')
  return { metadata: { user_id: id } }
}

function writeServiceTier(tier: unknown): JsonObject {
  if (isAbsent(tier)) return {}
  if (tier === 'auto') return { service_tier: 'auto' }
  if (tier === 'default') return { service_tier: 'standard_only' }
  throw invalidRequest('service_tier', 'must be auto or default for this service')
}
