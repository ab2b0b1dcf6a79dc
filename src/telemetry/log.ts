import { isSpanContextValid, trace } from '@opentelemetry/api'
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

export interface LogOptions {
  /** Lowest level that is written; "silent" writes nothing. */
  readonly level: string
  /** Slot of the process among several that share a port; stands in every line. Default: it is alone. */
  readonly worker?: number | undefined
  /** Where lines go; default standard error, so that standard output stays free for what a command prints. */
  readonly destination?: DestinationStream
}

/**
 * A logger of JSON lines, written synchronously: the last words of a crash are kept, and hot paths log below the level.
 *
 * - `trace_id` and `span_id` of the active span are added.
 * - Credentials and payloads that slip in under their usual names are replaced by "[redacted]", at the top and one level
 *   down.
 * - An error shows type, message, code, reason and stack, and its causes; its other properties are left out, since
 *   drivers attach queries, commands and arguments to theirs.
 */
export function createLogger(options: LogOptions): Logger {
  return pino(
    {
      level: options.level,
      base: options.worker === undefined ? null : { worker: options.worker },
      messageKey: 'message',
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      mixin: traceIds,
      redact: { paths: secretPaths, censor: '[redacted]' },
      serializers: { err: (error: unknown) => describeError(error), error: (error: unknown) => describeError(error) },
    },
    options.destination ?? destination({ dest: 2, sync: true }),
  )
}

const secretNames = [
  'authorization',
  'proxy-authorization',
  'x-api-key',
  'cookie',
  'key',
  'apiKey',
  'adminKey',
  'secret',
  'password',
  'credential',
  'payload',
  'prompt',
  'body',
  'responseData',
]

const secretPaths = secretNames.flatMap((name) => {
  const step = /^\w+$/.test(name) ? `.${name}` : `["${name}"]`
  return [step.replace(/^\./, ''), `*${step}`]
})

/** A fresh object each time: pino writes the line's own fields into it, and a shared one would carry them on. */
function traceIds(): object {
  const context = trace.getActiveSpan()?.spanContext()
  if (context === undefined || !isSpanContextValid(context)) return {}
  return { trace_id: context.traceId, span_id: context.spanId }
}

interface DescribedError {
  type: string
  message: string
  code?: string
  reason?: string
  stack?: string
  cause?: DescribedError
}

const maxCauses = 5

function describeError(error: unknown, depth = 0): DescribedError {
  if (!(error instanceof Error)) return { type: typeof error, message: 'something that is no Error was thrown' }
  const described: DescribedError = { type: error.name, message: error.message }
  if ('code' in error && (typeof error.code === 'string' || typeof error.code === 'number'))
    described.code = String(error.code)
  if ('reason' in error && typeof error.reason === 'string') described.reason = error.reason
  if (error.stack !== undefined) described.stack = error.stack
  if (error.cause !== undefined && depth < maxCauses) described.cause = describeError(error.cause, depth + 1)
  return described
}
