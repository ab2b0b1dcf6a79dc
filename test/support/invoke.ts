import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf'
import { INVALID_SPAN_CONTEXT, trace } from '@opentelemetry/api'
import type { Call, EndListener, UnaryHandler } from '../../src/call.ts'
import { TollgateError } from '../../src/errors.ts'
import { anonymous, type Caller, type Principal } from '../../src/identity/principal.ts'

/** Calls the implementation of a unary RPC directly, without a wire; rules and permissions of the contract do not apply. */
export async function invoke<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  handler: UnaryHandler<I, O> | undefined,
  request: MessageInitShape<I>,
  principal: Principal,
): Promise<MessageShape<O>> {
  if (handler === undefined) throw new Error(`${method.name} is not implemented`)
  return create(method.output, await handler(create(method.input, request), testCall(principal)))
}

/** A call by someone, with a minute left and nothing else known of it but `changes`; over early when its signal says so. */
export function testCall(
  principal: Principal = anonymous,
  changes: Partial<Omit<Call, 'ended' | 'onEnd' | 'offEnd'>> = {},
): Call {
  const caller = new AbortController()
  const { signal = caller.signal } = changes
  const told = new Map<EndListener, () => void>()
  const reason = (): TollgateError =>
    signal.reason instanceof TollgateError ? signal.reason : new TollgateError('CANCELLED', 'the caller went away')
  return {
    id: '0193d6a0-0000-7000-8000-000000000000',
    principal,
    deadlineMs: Date.now() + 60_000,
    get ended() {
      return signal.aborted ? reason() : undefined
    },
    onEnd(listener) {
      const onAbort = (): void => listener(reason())
      if (signal.aborted) return onAbort()
      told.set(listener, onAbort)
      signal.addEventListener('abort', onAbort, { once: true })
    },
    offEnd(listener) {
      const onAbort = told.get(listener)
      if (onAbort !== undefined) signal.removeEventListener('abort', onAbort)
    },
    signal,
    abort: (reason) => caller.abort(reason),
    peerAddress: '127.0.0.1',
    userAgent: 'test',
    span: trace.wrapSpanContext(INVALID_SPAN_CONTEXT),
    header: () => undefined,
    setResponseHeader: () => {},
    ...changes,
  }
}

export const administrator: Caller = {
  kind: 'administrator',
  subject: 'administrator',
  roles: ['admin'],
  consumerId: undefined,
  organizationId: undefined,
  keyId: undefined,
}

/** The caller that a consumer's API key makes. */
export function keyOf(consumer: { id: string; organizationId: string }, keyId = 'testkey'): Caller {
  const { id, organizationId } = consumer
  return {
    kind: 'key',
    subject: `key:${keyId}`,
    roles: ['consumer'],
    keyId,
    consumerId: id,
    organizationId,
  }
}
