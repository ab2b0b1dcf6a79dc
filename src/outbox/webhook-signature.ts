import { createHmac } from 'node:crypto'

/** Text before the Base64 of a secret. */
const prefix = 'whsec_'

/** The bytes of a secret in the form that Standard Webhooks gives it; undefined when it is none, or has less than 24. */
export function webhookKey(secret: string): Buffer | undefined {
  const text = secret.slice(prefix.length)
  if (!secret.startsWith(prefix) || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined
  const key = Buffer.from(text, 'base64')
  return key.length < 24 ? undefined : key
}

/**
 * The headers by which a receiver knows that a body is ours and new: Standard Webhooks,
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
 */
export function signatureHeaders(key: Buffer, id: string, nowMs: number, body: string): Record<string, string> {
  const timestamp = String(Math.floor(nowMs / 1000))
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${signature}` }
}
