/**
 * A server of OpenAI's chats with tools, after its public documentation:
 * - https://platform.openai.com/docs/api-reference/chat/object (`tool_calls`, finish reasons, `usage`)
 * - https://platform.openai.com/docs/api-reference/chat-streaming (deltas of tool calls, `stream_options`)
 */
import { at, has, type Json, list, member } from './json.ts'
import { countWords, type ProviderAnswer, type ProviderServer, startProviderServer, turnOf } from './provider-server.ts'

export function startOpenAiServer(): Promise<ProviderServer> {
  return startProviderServer(({ body }) => answer(body))
}

function answer(body: Json): ProviderAnswer {
  const messages = list(at(body, 'messages'))
  const { texts, call } = turnOf(
    has(body, 'tools'),
    messages.some((message) => at(message, 'role') === 'tool'),
  )
  const prompt = countWords(messages)
  const completion = countWords([...texts]) + (call === undefined ? 0 : 12)
  const usage = { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
  const finish = call === undefined ? 'stop' : 'tool_calls'
  const head = { id: 'chatcmpl-1', created: 1_767_225_600, model: at(body, 'model') }
  const [before, after] = ['{"city": "Zür', 'ich"}']
  const called = call && { id: 'call_1', type: 'function', function: { name: call.name, arguments: before + after } }

  if (member(body, 'stream') !== true) {
    const calls = called === undefined ? {} : { tool_calls: [called] }
    const message = { role: 'assistant', content: texts.join(''), refusal: null, ...calls }
    const choices = [{ index: 0, message, logprobs: null, finish_reason: finish }]
    return { status: 200, body: { ...head, object: 'chat.completion', choices, usage } }
  }
  const event = (choices: Json, used: Json) =>
    `data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', choices, usage: used })}\n\n`
  const delta = (says: Json, reason: string | null = null) =>
    event([{ index: 0, delta: says, finish_reason: reason }], null)
  const argumentsOf = (part: string) => delta({ tool_calls: [{ index: 0, function: { arguments: part } }] })
  const calls =
    called === undefined
      ? []
      : [
          delta({ tool_calls: [{ index: 0, ...called, function: { name: called.function.name, arguments: '' } }] }),
          argumentsOf(before),
          argumentsOf(after),
        ]
  const events = [
    delta({ role: 'assistant', content: '' }),
    ...texts.map((content) => delta({ content })),
    ...calls,
    delta({}, finish),
    event([], usage),
    'data: [DONE]\n\n',
  ]
  const error = { message: 'The server had an error', type: 'server_error', param: null, code: null }
  // In the middle of the arguments, where a call is made.
  return { events, failure: `data: ${JSON.stringify({ error })}\n\n`, delivered: texts.length + 3 }
}
