import { describe, expect, test } from 'vitest'
import { statusError } from './failures.ts'

/** Errors as the providers document them, with what they are about. */
const errors: readonly (readonly [from: string, status: number, body: unknown, kind: string, reason: string])[] = [
  ['OpenAI', 400, { error: { code: 'context_length_exceeded' } }, 'context_length', 'BACKEND_REJECTED'],
  ['OpenAI', 400, { error: { type: 'invalid_request_error', code: null } }, 'rejected', 'BACKEND_REJECTED'],
  ['OpenAI', 401, { error: { code: 'invalid_api_key' } }, 'credential', 'BACKEND_CREDENTIAL_REFUSED'],
  ['OpenAI', 429, { error: { code: 'rate_limit_exceeded' } }, 'rate_limit', 'BACKEND_FAILED'],
  ['OpenAI', 500, { error: { type: 'server_error' } }, 'failed', 'BACKEND_FAILED'],
  ['Azure', 400, { error: { code: 'content_filter' } }, 'content_filter', 'BACKEND_REJECTED'],
  [
    'vLLM',
    400,
    { error: { message: "This model's maximum context length is 8 tokens." } },
    'context_length',
    'BACKEND_REJECTED',
  ],
  ['llama.cpp', 400, { error: { type: 'exceed_context_size_error' } }, 'context_length', 'BACKEND_REJECTED'],
  ['llama.cpp', 500, { error: { message: 'Context size has been exceeded.' } }, 'context_length', 'BACKEND_REJECTED'],
  ['Ollama', 404, { error: "model 'x' not found" }, 'rejected', 'BACKEND_REJECTED'],
  [
    'Anthropic',
    400,
    { type: 'error', error: { type: 'invalid_request_error', message: 'prompt is too long: 9 > 8' } },
    'context_length',
    'BACKEND_REJECTED',
  ],
  [
    'Anthropic',
    401,
    { type: 'error', error: { type: 'authentication_error' } },
    'credential',
    'BACKEND_CREDENTIAL_REFUSED',
  ],
  ['Anthropic', 529, { type: 'error', error: { type: 'overloaded_error' } }, 'overloaded', 'BACKEND_FAILED'],
  ['Anthropic', 500, { type: 'error', error: { type: 'api_error' } }, 'failed', 'BACKEND_FAILED'],
  [
    'Gemini',
    400,
    {
      error: {
        code: 400,
        status: 'INVALID_ARGUMENT',
        message: 'The input token count (9) exceeds the maximum number of tokens allowed (8).',
      },
    },
    'context_length',
    'BACKEND_REJECTED',
  ],
  [
    'Gemini',
    400,
    { error: { code: 400, status: 'INVALID_ARGUMENT', details: [{ reason: 'API_KEY_INVALID' }] } },
    'credential',
    'BACKEND_CREDENTIAL_REFUSED',
  ],
  ['Gemini', 429, { error: { code: 429, status: 'RESOURCE_EXHAUSTED' } }, 'rate_limit', 'BACKEND_FAILED'],
  ['Gemini', 503, { error: { code: 503, status: 'UNAVAILABLE' } }, 'overloaded', 'BACKEND_FAILED'],
  ['a proxy', 502, '<html>', 'failed', 'BACKEND_FAILED'],
  ['a proxy', 403, '', 'credential', 'BACKEND_CREDENTIAL_REFUSED'],
  ['a proxy', 413, '', 'rejected', 'BACKEND_REJECTED'],
  ['a proxy', 408, '', 'failed', 'BACKEND_FAILED'],
]

describe('an error of a backend', () => {
  test.each(errors)('of %s with status %d and body %j is about %s', (_, status, body, kind, reason) => {
    const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
    const error = statusError(status, bytes)
    expect(error).toMatchObject({ reason, metadata: { backendError: kind, backendStatus: String(status) } })
  })

  test('never repeats what the backend wrote', () => {
    const error = statusError(401, Buffer.from('{"error":{"message":"bad key sk-secret","code":"sk-secret"}}'))
    expect(JSON.stringify([error.message, error.metadata])).not.toContain('sk-secret')
  })
})
