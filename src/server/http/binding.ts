import { type DescField, type DescMessage, type DescMethod, getOption, hasOption } from '@bufbuild/protobuf'
import { http } from '../../../gen/google/api/annotations_pb.ts'
import type { HttpRule } from '../../../gen/google/api/http_pb.ts'
import { fieldNamed } from './field-names.ts'
import { type PathTemplate, parseTemplate, type Variable } from './path-template.ts'

export type HttpVerb = 'GET' | 'PUT' | 'POST' | 'DELETE' | 'PATCH'

/** One way to call an RPC over HTTP, as `google.api.http` declares it. */
export interface Binding {
  readonly method: DescMethod
  readonly verb: HttpVerb
  readonly template: PathTemplate
  readonly variables: readonly BoundVariable[]
  /** The whole request, one field of it, or nothing: then its fields are query parameters. */
  readonly body: 'whole' | DescField | undefined
  /** The field that is the answer; undefined for the whole message. */
  readonly responseBody: DescField | undefined
}

export interface BoundVariable extends Variable {
  /** From the request down to the field. */
  readonly fields: readonly [DescField, ...DescField[]]
}

/** The message that is answered as it is, with a content type of its own, instead of as JSON; as a body it is taken so. */
export const rawBodyType = 'google.api.HttpBody'

/** The bindings of an RPC, in the order in which they are declared. Throws, naming the RPC, when one cannot be served. */
export function bindingsOf(method: DescMethod): Binding[] {
  if (!hasOption(method, http)) return []
  const rule = getOption(method, http)
  try {
    for (const { additionalBindings } of rule.additionalBindings) {
      if (additionalBindings.length > 0) throw new Error('an additional binding has additional bindings')
    }
    return [rule, ...rule.additionalBindings].map((each) => bindingOf(method, each))
  } catch (error) {
    throw new Error(`the HTTP binding of ${method} is wrong: ${error instanceof Error ? error.message : error}`)
  }
}

function bindingOf(method: DescMethod, { pattern, body, responseBody }: HttpRule): Binding {
  if (pattern.case === undefined) throw new Error('it has no path')
  if (pattern.case === 'custom') throw new Error(`it has the custom verb "${pattern.value.kind}"`)
  if (method.methodKind !== 'unary' && method.methodKind !== 'server_streaming') {
    throw new Error('its caller streams, which plain HTTP cannot carry')
  }
  const verb = verbs[pattern.case]
  const template = parseTemplate(pattern.value)
  if (body !== '' && (verb === 'GET' || verb === 'DELETE')) throw new Error(`${verb} takes no body`)
  const bodyField = body === '' ? undefined : body === '*' ? 'whole' : topField(method.input, body, 'body')
  const variables = template.variables.map((variable) => {
    const fields = pathField(method.input, variable.field)
    if (fields[0] === bodyField && fields.length === 1) throw new Error(`${body} is in the path and is the body`)
    return { ...variable, fields }
  })
  const answer = responseBody === '' ? undefined : topField(method.output, responseBody, 'response_body')
  if (method.methodKind === 'server_streaming') checkStream(answer?.message ?? method.output, answer)
  return { method, verb, template, variables, body: bodyField, responseBody: answer }
}

/** A line of a stream that is an error must not be a line that could be a message. */
function checkStream(message: DescMessage, answer: DescField | undefined): void {
  if (answer !== undefined && answer.fieldKind !== 'message') throw new Error('a stream of it is no stream of messages')
  if (message.typeName === rawBodyType) throw new Error(`a stream of ${rawBodyType} is not served`)
  if (fieldNamed(message, 'error') !== undefined)
    throw new Error(`${message.typeName} of its stream has a field "error"`)
}

function topField(message: DescMessage, name: string, role: string): DescField {
  const field = message.fields.find((each) => each.name === name)
  if (field === undefined) throw new Error(`${role}: ${message.typeName} has no field "${name}"`)
  return field
}

function pathField(input: DescMessage, path: string): [DescField, ...DescField[]] {
  const steps: DescField[] = []
  let message: DescMessage | undefined = input
  for (const name of path.split('.')) {
    const field: DescField | undefined = message?.fields.find((each) => each.name === name)
    if (field === undefined) throw new Error(`${input.typeName} has no field "${path}" for its path`)
    steps.push(field)
    message = field.fieldKind === 'message' ? field.message : undefined
  }
  const [first, ...rest] = steps
  const last = steps.at(-1)
  if (first === undefined || last === undefined) throw new Error('its path binds a field without a name')
  if (last.fieldKind !== 'scalar' && last.fieldKind !== 'enum') throw new Error(`${path} is no single value`)
  return [first, ...rest]
}

const verbs = { get: 'GET', put: 'PUT', post: 'POST', delete: 'DELETE', patch: 'PATCH' } as const
