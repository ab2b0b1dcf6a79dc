/**
 * Writes the table of routes into docs/http-api.md from the HTTP bindings of the protos; with `--check` it fails when the
 * page has another one.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { declaredAccess } from '../server/authorize.ts'
import { type Binding, bindingsOf } from '../server/http/binding.ts'
import { declaredServices } from './declared-services.ts'
import { withPart } from './marked-part.ts'

const target = new URL('../../docs/http-api.md', import.meta.url)
const [begin, end] = ['<!-- routes: written by src/tools/route-docs.ts -->\n', '<!-- end of routes -->']

const page = readFileSync(target, 'utf8')
const methods = (await declaredServices()).flatMap((service) => service.methods)
const rows = methods
  .flatMap(bindingsOf)
  .sort((one, other) => compare(one.template.text, other.template.text) || compare(one.verb, other.verb))
  .map(row)
const table = ['| route | RPC | body | permission |', '|---|---|---|---|', ...rows, ''].join('\n')
const text = withPart(page, begin, end, table)
if (!process.argv.includes('--check')) writeFileSync(target, text)
else if (page !== text) {
  console.error(
    'docs/http-api.md differs from the HTTP bindings in proto/: run "npm run generate" and commit the result',
  )
  process.exitCode = 1
}

function row({ method, verb, template, body, responseBody }: Binding): string {
  const access = declaredAccess(method)
  const permission = typeof access === 'string' ? access : `\`${access.permission}\``
  const taken = body === undefined ? '' : body === 'whole' ? 'the request' : `\`${body.name}\``
  const answered = responseBody === undefined ? '' : `, answers \`${responseBody.name}\``
  const streamed = method.methodKind === 'server_streaming' ? ', a stream' : ''
  const name = `${method.parent.name}.${method.name}`
  return `| \`${verb} ${template.text}\` | \`${name}\`${answered}${streamed} | ${taken} | ${permission} |`
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}
