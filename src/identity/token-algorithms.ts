/** Algorithms that a token may be signed with at all. None of them works with a secret that the gate would share. */
export const tokenAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const

export type TokenAlgorithm = (typeof tokenAlgorithms)[number]
