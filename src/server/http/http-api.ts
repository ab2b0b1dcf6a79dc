/**
 * The HTTP API: every RPC that declares `google.api.http` bindings, called by them. A call runs through the same middleware
 * chain as on the other wires and to the same implementation; what is here is translation.
 */
import type { Logger } from 'pino'
import { reasons, TollgateError } from '../../errors.ts'
import type { ChunkedAnswer, WholeAnswer } from '../answer.ts'
import { AnswerHeaders } from '../answer-headers.ts'
import { failCall } from '../connect-error.ts'
import type { Target } from '../dispatch.ts'
import { type Exchange, noBytes } from '../exchange.ts'
import type { Chain } from '../middleware.ts'
import type { WholeLimits } from '../read-whole.ts'
import { answerInParts, answerOnce, lateTo, type ServiceRegistration } from '../rpc.ts'
import type { Rpc, ServerCall } from '../server-call.ts'
import { errorAnswer, messageAnswer, streamAnswer } from './answers.ts'
import { type Binding, bindingsOf, rawBodyType } from './binding.ts'
import { checkJsonType, readPlainBody } from './body.ts'
import { requestMessage } from './request-message.ts'
import { type Match, RouteTable } from './route-table.ts'

export interface HttpApiOptions extends WholeLimits {
  readonly registrations: readonly ServiceRegistration[]
  /** Of all registrations, by path. */
  readonly rpcs: ReadonlyMap<string, Rpc>
  /** Ways in that belong to others; a binding that would answer one of them is refused. */
  readonly taken: readonly { readonly verb: string; readonly path: string }[]
  readonly chain: Chain
  readonly log: Logger
}

type Answer = WholeAnswer | ChunkedAnswer

interface Route extends Binding {
  readonly rpc: Rpc
  readonly handler: unknown
}

/**
 * Finds what answers a request: an RPC; a refusal with 405 where only other methods have one; a refusal with 404 below /api/,
 * which is all the HTTP API's. Throws at start when a binding is wrong, or says what another one says already.
 */
export function createHttpApi(options: HttpApiOptions): (exchange: Exchange) => Target | undefined {
  const { chain } = options
  const late = lateTo(options.log)
  const tables = tablesOf(options)

  async function answer(match: Match<Route>, exchange: Exchange, call: ServerCall): Promise<Answer> {
    const headers = headersOf(call)
    const answered = await attempt(match, exchange, call, headers)
    return exchange.method === 'HEAD' && 'whole' in answered ? { ...answered, whole: noBytes } : answered
  }

  async function attempt(
    { route, segments }: Match<Route>,
    exchange: Exchange,
    call: ServerCall,
    headers: AnswerHeaders,
  ): Promise<Answer> {
    try {
      const entering = chain.headers(call)
      if (entering !== undefined) await call.race(entering, ignore)
      const contentType = call.header('content-type') ?? ''
      const takesOnlyJson = takesJson(route)
      if (takesOnlyJson && Number(call.header('content-length') ?? 0) > 0) checkJsonType(contentType)
      const body = await readPlainBody(exchange, call, options)
      if (takesOnlyJson && body.length > 0) checkJsonType(contentType)
      const message = requestMessage(route, { segments, url: exchange.url, contentType, body })
      if (route.method.methodKind === 'server_streaming') {
        return await streamAnswer(route, answerInParts(route.handler, message, call, chain, late), call, headers)
      }
      const answered = await answerOnce(route.handler, message, call, chain, late)
      return messageAnswer(route, answered, headers, route.rpc.httpSuccess ?? 200)
    } catch (thrown) {
      failCall(call, thrown)
      return errorAnswer(call, headers)
    }
  }

  return ({ method, path }) => {
    const found = tables.get(method === 'HEAD' ? 'GET' : method)?.find(path)
    if (found !== undefined && (method !== 'HEAD' || found.route.method.methodKind === 'unary')) {
      return { rpc: found.route.rpc, answer: (asked, call) => answer(found, asked, call) }
    }
    const allowed = verbsOf(tables, path)
    if (allowed.length > 0) return refusal(chain, notAllowed(method, allowed), { allow: allowed.join(', ') })
    return path.startsWith('/api/') ? refusal(chain, notFound(method, path)) : undefined
  }
}

function tablesOf({ registrations, rpcs, taken }: HttpApiOptions): ReadonlyMap<string, RouteTable<Route>> {
  const tables = new Map<string, RouteTable<Route>>()
  for (const { service, implementation } of registrations) {
    for (const method of service.methods) {
      const rpc = rpcs.get(`/${service.typeName}/${method.name}`)
      if (rpc === undefined) throw new Error(`${method} is not described`)
      for (const binding of bindingsOf(method)) {
        const { verb, template } = binding
        const table = tables.get(verb) ?? new RouteTable()
        tables.set(verb, table)
        const route = {
          ...binding,
          rpc: { ...rpc, verb, path: template.text },
          handler: implementation(method.localName),
        }
        try {
          table.add(route)
        } catch (error) {
          throw new Error(`the HTTP binding ${verb} of ${method} cannot be served: ${error}`)
        }
      }
    }
  }
  for (const { verb, path } of taken) {
    const found = tables.get(verb)?.find(path)
    if (found === undefined) continue
    throw new Error(`the HTTP binding ${verb} "${found.route.template.text}" of ${found.route.method} hides ${path}`)
  }
  return tables
}

function verbsOf(tables: ReadonlyMap<string, RouteTable<Route>>, path: string): string[] {
  const verbs: string[] = []
  for (const [verb, table] of tables) {
    const found = table.find(path)
    if (found === undefined) continue
    verbs.push(verb)
    if (verb === 'GET' && found.route.method.methodKind === 'unary') verbs.push('HEAD')
  }
  return verbs.sort()
}

function takesJson({ body }: Binding): boolean {
  if (body === undefined || body === 'whole') return body === 'whole'
  return body.fieldKind !== 'message' || body.message.typeName !== rawBodyType
}

/** A call of nothing: it goes through the chain as a public one, so that it is counted and logged like any other. */
function refusal(chain: Chain, error: TollgateError, more: Readonly<Record<string, string>> = {}): Target {
  return {
    rpc: unknownRpc,
    async answer(_exchange, call) {
      const headers = headersOf(call)
      for (const [name, value] of Object.entries(more)) headers.set(name, value)
      try {
        const entering = chain.headers(call)
        if (entering !== undefined) await call.race(entering, ignore)
        throw error
      } catch (thrown) {
        failCall(call, thrown)
        return errorAnswer(call, headers)
      }
    },
  }
}

function headersOf(call: ServerCall): AnswerHeaders {
  const headers = new AnswerHeaders([
    ...['content-type', 'application/json'],
    ...['cache-control', 'no-store'],
    ...['x-content-type-options', 'nosniff'],
    ...['x-request-id', call.id],
  ])
  call.answerWith(headers)
  return headers
}

function notAllowed(method: string, allowed: readonly string[]): TollgateError {
  const methods = allowed.join(', ')
  return new TollgateError('METHOD_NOT_ALLOWED', `this path takes ${methods}, not ${method.slice(0, 20)}`, {
    metadata: { allowed: methods },
  })
}

function notFound(method: string, path: string): TollgateError {
  return new TollgateError('RPC_NOT_FOUND', `there is no ${method.slice(0, 20)} ${path.slice(0, 200)} here`)
}

/** Asks for no credential: there is nothing to protect. */
const unknownRpc: Rpc = {
  method: undefined,
  name: 'other /*',
  verb: 'other',
  path: '/*',
  access: 'public',
  consumerPath: [],
  organizationPath: [],
  longLived: false,
  httpStatusOf: ({ reason }) => reasons[reason].http,
}

function ignore(): void {}
