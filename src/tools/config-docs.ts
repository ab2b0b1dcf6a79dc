/**
 * Writes docs/configuration.md from the variables of config-variables.ts; with `--check` it fails when the file differs.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import type { Group } from '../config/variable.ts'
import { variables } from '../config-variables.ts'

const target = new URL('../../docs/configuration.md', import.meta.url)

const groups: Readonly<Record<Group, string>> = {
  Server: 'The listener and what its callers may do.',
  Storage: 'What is kept, and where. `tollgate dev` and `tollgate serve` take the same settings.',
  Backends: 'Calls to the backends of published services.',
  Access: 'Who may do what.',
  Tokens: 'JSON Web Tokens as credentials: see [authentication.md](authentication.md).',
  Events: 'What others are told: see [events.md](events.md).',
  Registry:
    'Services of other installations, and those of this one there: see [registry.md](registry.md#an-outside-registry).',
  Observability: 'Logs and traces. Metrics are always at `/metrics`.',
}

type AnyVariable = (typeof variables)[keyof typeof variables]

const text = print()
if (!process.argv.includes('--check')) writeFileSync(target, text)
else if (read() !== text) {
  console.error(
    'docs/configuration.md differs from src/config-variables.ts: run "npm run generate" and commit the result',
  )
  process.exitCode = 1
}

function read(): string {
  try {
    return readFileSync(target, 'utf8')
  } catch {
    return ''
  }
}

function print(): string {
  const sections = Object.entries(groups).map(([group, introduction]) => {
    const rows = Object.values(variables)
      .filter((variable) => variable.group === group)
      .map((variable) => row(variable))
    return [
      `## ${group}`,
      '',
      introduction,
      '',
      '| variable | value | default | what it does |',
      '|---|---|---|---|',
      ...rows,
      '',
    ].join('\n')
  })
  return `# Configuration

<!-- Written by src/tools/config-docs.ts; change src/config-variables.ts and run "npm run generate". -->

Tollgate is configured by environment variables. With none set it runs. An empty variable counts as absent. All are
checked at start, and every wrong one is named in one message with its value, the reason and the remedy; secrets are
shown by their length only. Where two defaults stand, the first is that of \`tollgate dev\`, the second that of
\`tollgate serve\`. No variable is required: \`tollgate serve\` warns of what a production setup should not miss.

${sections.join('\n')}
## Read by the OpenTelemetry SDK

When \`OTEL_EXPORTER_OTLP_ENDPOINT\` is set, the SDK also reads its own variables: \`OTEL_EXPORTER_OTLP_HEADERS\`,
\`OTEL_EXPORTER_OTLP_TIMEOUT\`, \`OTEL_RESOURCE_ATTRIBUTES\`, \`OTEL_BSP_*\` and \`OTEL_PROPAGATORS\`.
`
}

function row({ name, aliases, parser, unit, defaults, description }: AnyVariable): string {
  const dev = show(defaults.dev)
  const serve = show(defaults.serve)
  const alias = aliases.length === 0 ? '' : ` Also read as ${aliases.map((other) => `\`${other}\``).join(', ')}.`
  const cells = [
    `\`${name}\``,
    `${parser.expects}${unit === undefined ? '' : `, in ${unit}`}`,
    dev === serve ? dev : `${dev} / ${serve}`,
    description + alias,
  ]
  return `| ${cells.join(' | ').replaceAll('\n', ' ')} |`
}

function show(value: unknown): string {
  return value === undefined || (Array.isArray(value) && value.length === 0) ? 'none' : `\`${String(value)}\``
}
