/**
 * The OpenAI API: the same calls, limits and records as over gRPC, in OpenAI's words, so that its SDKs work with nothing
 * changed but base URL and key.
 *
 * An **operation** is one method and path. It runs through the same middleware chain as an RPC, and its calls through the
 * same gate: what is here is translation. Bodies pass as bytes, `model` names the service.
 */
import type { Logger } from 'pino'
import type { Gate, GateAnswer, GateRequest } from '../../consumption/gate.ts'
import { idempotencyKeyOf } from '../../consumption/idempotency.ts'
import { TollgateError } from '../../errors.ts'
import type { PolicyEngine } from '../../policy/policy-engine.ts'
import { toJsonBytes } from '../../providers/json.ts'
import type { RequestKind } from '../../providers/provider.ts'
import type { SnapshotSource } from '../../registry/snapshot.ts'
import type { Answer, WholeAnswer } from '../answer.ts'
import { AnswerHeaders } from '../answer-headers.ts'
import { failCall, toTollgateError } from '../connect-error.ts'
import type { Target } from '../dispatch.ts'
import type { Exchange } from '../exchange.ts'
import type { Chain } from '../middleware.ts'
import type { WholeLimits } from '../read-whole.ts'
import { lateTo } from '../rpc.ts'
import type { Rpc, ServerCall } from '../server-call.ts'
import { inTrace } from '../trace.ts'
import { rowOf, toOpenAiError } from './error-table.ts'
import { openEventStream } from './event-stream.ts'
import { readJsonBody } from './json-body.ts'
import { getModel, listModels } from './models.ts'
import { renameRateLimits } from './rate-limit-headers.ts'

export interface OpenAiOptions {
  readonly gate: Gate
  readonly snapshots: Pick<SnapshotSource, 'current'>
  /** Undefined lists every service (ENABLE_POLICY_VALIDATION). */
  readonly policy: PolicyEngine | undefined
}

interface ServedOptions extends OpenAiOptions, WholeLimits {
  readonly chain: Chain
  readonly log: Logger
}

interface Operation {
  readonly rpc: Rpc
  /** Makes the answer; what it throws is answered as an error. `headers` are the answer's. */
  run(exchange: Exchange, call: ServerCall, headers: AnswerHeaders): Promise<Answer>
}

export interface OpenAiApi {
  /** The operation of a request; undefined when it is none. */
  find(exchange: Exchange): Target | undefined
  /** What tells a caller of a path below /v1/ that it does not exist, in OpenAI's words. */
  refuse(exchange: Exchange): Target | undefined
  /** Methods and paths of all operations. */
  readonly routes: readonly { readonly verb: string; readonly path: string }[]
}

export function createOpenAiApi(options: ServedOptions): OpenAiApi {
  const { gate, snapshots, policy, chain } = options
  const late = lateTo(options.log)

  function answer(operation: Operation, exchange: Exchange, call: ServerCall): Promise<Answer> {
    const headers = new AnswerHeaders(['content-type', 'application/json', 'x-request-id', call.id])
    call.answerWith(headers)
    return call.race<Answer>(serve(operation, exchange, call, headers), late, (thrown) => {
      failCall(call, thrown)
      return errorAnswer(call.error ?? toTollgateError(thrown), headers)
    })
  }

  function serve({ run }: Operation, exchange: Exchange, call: ServerCall, headers: AnswerHeaders): Promise<Answer> {
    const entering = chain.headers(call)
    if (entering === undefined) return run(exchange, call, headers)
    return entering.then(() => {
      call.throwIfEnded()
      return run(exchange, call, headers)
    })
  }

  function consume(kind: RequestKind): Operation['run'] {
    return async (exchange, call, headers) => {
      const coming = readJsonBody(exchange, call, options)
      const { payload, parsed, model, stream } = coming instanceof Promise ? await coming : coming
      const admitting = chain.message(call)
      if (admitting !== undefined) await admitting
      call.throwIfEnded()
      const asked: GateRequest = {
        consumerId: consumerOf(call),
        serviceId: model,
        payload,
        parsed,
        metadata: {},
        idempotencyKey: idempotencyKeyOf('', call),
        dialect: 'openai',
        kind,
      }
      const answered = stream
        ? await streamed(asked, call, headers)
        : routed(await inTrace(call, () => gate.route(asked, call)), headers)
      headers.set('openai-processing-ms', String(Math.round(performance.now() - call.startedMs)))
      renameRateLimits(headers)
      return answered
    }
  }

  async function streamed(asked: GateRequest, call: ServerCall, headers: AnswerHeaders): Promise<Answer> {
    if (asked.kind === 'embedding') throw noStream()
    return await openEventStream(
      inTrace(call, () => gate.stream(asked, call)),
      call,
      headers,
      late,
    )
  }

  async function models({ path }: Exchange, call: ServerCall, headers: AnswerHeaders): Promise<Answer> {
    const admitting = chain.message(call)
    if (admitting !== undefined) await admitting
    call.throwIfEnded()
    const id = path.slice('/v1/models/'.length)
    const found = await inTrace<Promise<object>>(call, () => {
      const asked = [snapshots.current(), policy, consumerOf(call), call.principal] as const
      return id === '' ? listModels(...asked) : getModel(...asked, decoded(id))
    })
    return whole(200, headers, toJsonBytes(found))
  }

  const consumption = 'consumption.route'
  const operations: readonly Operation[] = [
    { rpc: operation('POST', '/v1/chat/completions', consumption), run: consume('chat') },
    { rpc: operation('POST', '/v1/completions', consumption), run: consume('completion') },
    { rpc: operation('POST', '/v1/embeddings', consumption), run: consume('embedding') },
    { rpc: operation('POST', '/v1/responses', consumption), run: consume('responses') },
    { rpc: operation('GET', '/v1/models', 'services.read'), run: models },
    { rpc: operation('GET', '/v1/models/{model}', 'services.read'), run: models },
  ]
  const targetOf = (found: Operation): Target => ({
    rpc: found.rpc,
    answer: (exchange, call) => answer(found, exchange, call),
  })

  const targets = new Map(operations.map((each) => [each.rpc.path, { verb: each.rpc.verb, target: targetOf(each) }]))
  const unknown = targetOf({ rpc: unknownRpc, run: refuseUnknown })

  return {
    routes: operations.map(({ rpc }) => rpc),
    find({ method, path }) {
      const template = path.startsWith('/v1/models/') && oneModel.test(path) ? '/v1/models/{model}' : path
      const found = targets.get(template)
      return found?.verb === method ? found.target : undefined
    },
    refuse: ({ path }) => (path.startsWith('/v1/') ? unknown : undefined),
  }
}

function operation(verb: 'GET' | 'POST', path: string, permission: string): Rpc {
  return { ...unknownRpc, name: `${verb} ${path}`, verb, path, access: { permission } }
}

function noStream(): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', 'stream must be absent or false: embeddings come as a whole', {
    metadata: { param: 'stream' },
  })
}

/** Asks for no credential: there is nothing to protect. */
const unknownRpc: Rpc = {
  method: undefined,
  name: 'other /v1/*',
  verb: 'other',
  path: '/v1/*',
  access: 'public',
  consumerPath: [],
  organizationPath: [],
  longLived: false,
  httpStatusOf: (error) => rowOf(error).status,
}

async function refuseUnknown({ method, path }: Exchange): Promise<Answer> {
  throw new TollgateError('RPC_NOT_FOUND', `There is no ${method} ${path.slice(0, 200)} here.`)
}

/** The consumer that pays: always the caller's own. */
function consumerOf({ principal }: ServerCall): string {
  if (principal.kind !== 'anonymous' && principal.consumerId !== undefined) return principal.consumerId
  throw new TollgateError('CONSUMER_MISMATCH', 'The credential has no consumer of its own: use the key of a consumer.')
}

function routed({ body, event, charge }: GateAnswer, headers: AnswerHeaders): WholeAnswer {
  headers.set('x-request-id', event.requestId)
  if (charge.currency !== '') {
    headers.set('x-tollgate-cost-nanos', String(charge.nanos))
    headers.set('x-tollgate-currency', charge.currency)
    headers.set('x-tollgate-price-version', charge.priceVersion)
  }
  return whole(200, headers, body)
}

function errorAnswer(error: TollgateError, headers: AnswerHeaders): WholeAnswer {
  const { status, body, shouldRetry } = toOpenAiError(error)
  headers.set('x-should-retry', String(shouldRetry))
  if (error.retryAfterMs !== undefined) headers.set('retry-after-ms', String(Math.ceil(error.retryAfterMs)))
  renameRateLimits(headers, error.limits[0]?.unit)
  return whole(status, headers, toJsonBytes(body))
}

function whole(status: number, headers: AnswerHeaders, body: Uint8Array): WholeAnswer {
  headers.set('content-length', String(body.length))
  return { status, headers, whole: body }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

const oneModel = /^\/v1\/models\/[^/]+$/
