import {
  type Attributes,
  context,
  propagation,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
} from '@opentelemetry/api'
import { reasons } from '../errors.ts'
import type { Middleware } from './middleware.ts'
import type { IncomingHeaders, Rpc } from './server-call.ts'

/**
 * Server span of the call, child of the caller's when it sent one (W3C trace context, or what propagator is registered).
 * Without a registered SDK every step is a no-op of the API package.
 */
export function traceCalls(): Middleware {
  const tracer = trace.getTracer('tollgate')
  return {
    name: 'trace',
    why: 'first, so that the span covers everything and the log line of the call can name it',
    phase: 'headers',
    enter(call) {
      const parent = propagation.extract(context.active(), call.headers, headerGetter)
      call.span = tracer.startSpan(
        call.rpc.name,
        {
          kind: SpanKind.SERVER,
          attributes: {
            ...attributesOf(call.rpc),
            'client.address': call.peerAddress,
            'user_agent.original': call.userAgent,
            'tollgate.request_id': call.id,
          },
        },
        parent,
      )
      call.traceContext = trace.setSpan(parent, call.span)
    },
    exit(call, { error, httpStatus }) {
      const code = error === undefined ? 0 : reasons[error.reason].grpc
      if (call.rpc.method === undefined) call.span.setAttribute('http.response.status_code', httpStatus)
      else call.span.setAttribute('rpc.grpc.status_code', code)
      if (error !== undefined) call.span.setAttribute('error.type', error.reason)
      // Only these codes are the server's fault: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
      if (serverFaults.has(code)) call.span.setStatus({ code: SpanStatusCode.ERROR, message: error?.message ?? '' })
      call.span.end()
    },
  }
}

/** https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/, and http/http-spans/ for what is no RPC. */
function attributesOf({ method, verb, path }: Rpc): Attributes {
  if (method === undefined) return { 'http.request.method': verb, 'http.route': path }
  return { 'rpc.system': 'grpc', 'rpc.service': method.parent.typeName, 'rpc.method': method.name }
}

/** UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
const serverFaults: ReadonlySet<number> = new Set([2, 4, 12, 13, 14, 15])

const headerGetter: TextMapGetter<IncomingHeaders> = {
  keys: (headers) => Object.keys(headers),
  get: (headers, name) => headers[name.toLowerCase()],
}
