import {
  type Attributes,
  context,
  ProxyTracerProvider,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { reasons } from '../errors.ts'
import type { Middleware } from './middleware.ts'
import type { IncomingHeaders, Rpc, ServerCall } from './server-call.ts'

/**
 * Server span of the call, child of the caller's when it sent one (W3C trace context, or what propagator is registered).
 * Without a registered SDK nothing is made, and for a span that is not sampled nothing but what the sampler may look at.
 */
export function traceCalls(): Middleware {
  let tracer: Tracer | undefined
  return {
    name: 'trace',
    why: 'first, so that the span covers everything and the log line of the call can name it',
    phase: 'headers',
    enter(call) {
      tracer ??= registeredTracer()
      if (tracer === undefined) return
      const parent = propagation.extract(context.active(), call.headers, headerGetter)
      call.span = tracer.startSpan(call.rpc.name, optionsOf(call.rpc), parent)
      call.traceContext = trace.setSpan(parent, call.span)
      if (!call.span.isRecording()) return
      call.span.setAttributes({
        'client.address': call.peerAddress,
        'user_agent.original': call.userAgent,
        'tollgate.request_id': call.id,
      })
    },
    exit(call, { error, httpStatus }) {
      const { span } = call
      if (span.isRecording()) {
        const code = error === undefined ? 0 : reasons[error.reason].grpc
        if (call.rpc.method === undefined) span.setAttribute('http.response.status_code', httpStatus)
        else span.setAttribute('rpc.grpc.status_code', code)
        if (error !== undefined) span.setAttribute('error.type', error.reason)
        // Only these codes are the server's fault: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
        if (serverFaults.has(code)) span.setStatus({ code: SpanStatusCode.ERROR, message: error?.message ?? '' })
      }
      span.end()
    },
  }
}

/** Runs `run` inside the trace of its call. */
export function inTrace<T>(call: ServerCall, run: () => T): T {
  return call.traceContext === ROOT_CONTEXT ? run() : context.with(call.traceContext, run)
}

/** The SDK's; undefined without one. */
function registeredTracer(): Tracer | undefined {
  const provider = trace.getTracerProvider()
  if (!(provider instanceof ProxyTracerProvider)) return provider.getTracer('tollgate')
  return provider.getDelegateTracer('tollgate')
}

const spanOptions = new WeakMap<Rpc, { kind: SpanKind; attributes: Attributes }>()

/** https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/, and http/http-spans/ for what is no RPC. Made once an RPC. */
function optionsOf(rpc: Rpc): { kind: SpanKind; attributes: Attributes } {
  const known = spanOptions.get(rpc)
  if (known !== undefined) return known
  const { method, verb, path } = rpc
  const attributes: Attributes =
    method === undefined
      ? { 'http.request.method': verb, 'http.route': path }
      : { 'rpc.system': 'grpc', 'rpc.service': method.parent.typeName, 'rpc.method': method.name }
  const made = { kind: SpanKind.SERVER, attributes }
  spanOptions.set(rpc, made)
  return made
}

/** UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
const serverFaults: ReadonlySet<number> = new Set([2, 4, 12, 13, 14, 15])

const headerGetter: TextMapGetter<IncomingHeaders> = {
  keys: (headers) => Object.keys(headers),
  get: (headers, name) => headers[name.toLowerCase()],
}
