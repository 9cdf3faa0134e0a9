// An OpenID provider for tests: node server.mjs PORT PEOPLE, where PEOPLE is a
// JSON list of {Email, Groups, Tenant}. Everybody signs in with any password.
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, list] = process.argv.slice(2);
const people = new Map(JSON.parse(list).map((p) => [p.Email, p]));
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const client = (client_id) => ({
  client_id,
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback'],
  id_token_signed_response_alg: 'ES256',
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client('bulkhead-cli'), client('bulkhead-data')],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'test' }] },
  cookies: { keys: ['only for tests'] },
  conformIdTokenClaims: false,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups', 'tenant'] },
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
  enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
  ttl: { IdToken: 3600, AccessToken: 3600, Grant: 3600, Interaction: 3600, Session: 3600, DeviceCode: 600, RefreshToken: 3600 },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  findAccount: async (_, id) => people.has(id) && {
    accountId: id,
    claims: async () => ({ sub: id, email: id, email_verified: true, groups: people.get(id).Groups, tenant: people.get(id).Tenant }),
  },
});
provider.listen(Number(port), '127.0.0.1');
