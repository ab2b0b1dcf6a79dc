import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import type { Target } from './target.ts'

/** What a command says when it failed, in lines: what, which fields, what to do. Holds no credential. */
export function failureText(error: unknown, target: Target | undefined): string {
  if (!(error instanceof ConnectError) || target === undefined) {
    return `tollgate: ${error instanceof Error ? error.message : String(error)}\n`
  }
  const { address, source } = target
  const [info] = error.findDetails(ErrorInfoSchema)
  const lines = [`tollgate: ${error.rawMessage}${info === undefined ? '' : ` (${info.reason})`}`]
  for (const { fieldViolations } of error.findDetails(BadRequestSchema)) {
    for (const { field, description } of fieldViolations) lines.push(`  ${field}: ${description}`)
  }
  for (const { retryDelay } of error.findDetails(RetryInfoSchema)) {
    if (retryDelay !== undefined) lines.push(`  try again in ${Number(retryDelay.seconds) + retryDelay.nanos / 1e9} s`)
  }
  const remedy = info === undefined ? unreachable(error, address) : remedies[info.reason]
  if (remedy !== undefined) lines.push(`  ${remedy}`)
  lines.push(`  asked ${address} (${source})`)
  return `${lines.join('\n')}\n`
}

/** Answers of a gate carry a reason; what has none did not come from one. */
function unreachable({ code }: ConnectError, address: string): string | undefined {
  if (code !== Code.Unavailable && code !== Code.Unknown && code !== Code.DeadlineExceeded) return undefined
  return `No gate answers at ${address}: start one, or name it with --address, TOLLGATE_ADDRESS or a profile.`
}

const remedies: Readonly<Record<string, string>> = {
  CREDENTIAL_MISSING:
    'Set TOLLGATE_KEY, or name a file with --key-file, or make a profile with "tollgate profile set".',
  CREDENTIAL_INVALID: 'Check TOLLGATE_KEY, the file of --key-file, or the profile.',
  PERMISSION_MISSING: 'Use a credential whose role holds this permission.',
}
