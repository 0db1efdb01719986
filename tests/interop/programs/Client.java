// A client on Java's JSSE: java Client.java PORT FOLDER OUTPUT SIZES VERSION SUITE FEATURE PASSWORD
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.Security;
import java.security.cert.CertificateFactory;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    public static void main(String[] words) throws Exception {
        String folder = words[1], feature = words[6], password = words[7];
        if (feature.equals("KeyUpdate by the peer")) {
            Security.setProperty(
                    "jdk.tls.keyLimits", "AES/GCM/NoPadding KeyUpdate 2^20, ChaCha20-Poly1305 KeyUpdate 2^20");
        }
        if (feature.equals("small records")) System.setProperty("jsse.enableMFLNExtension", "true");
        SSLContext context = context(folder, feature.equals("client certificate") ? password : null);
        for (String one : words[3].split(",")) {
            int size = Integer.parseInt(one);
            try (Socket plain = new Socket(InetAddress.getByName("127.0.0.1"), Integer.parseInt(words[0]))) {
                plain.setTcpNoDelay(true);
                SSLSocket tls = (SSLSocket)
                        context.getSocketFactory().createSocket(plain, "localhost", plain.getPort(), false);
                SSLParameters parameters = tls.getSSLParameters();
                parameters.setProtocols(new String[] {"TLSv" + words[4]});
                parameters.setCipherSuites(new String[] {words[5]});
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                if (feature.equals("small records")) parameters.setMaximumPacketSize(1024);
                tls.setSSLParameters(parameters);
                // Its own keys change by how much it sends.
                boolean upload = feature.equals("upload") || feature.equals("KeyUpdate by the peer");
                byte[] said = fetch(tls, folder, size, upload);
                Files.write(Path.of(words[2], one), said);
                if (!feature.equals("no close_notify")) tls.close();
            }
        }
    }

    static byte[] fetch(SSLSocket tls, String folder, int size, boolean upload) throws Exception {
        OutputStream out = tls.getOutputStream();
        String first = upload ? "POST /upload HTTP/1.1\r\nContent-Length: " + size : "GET /" + size + " HTTP/1.1";
        out.write((first + "\r\nHost: localhost\r\nConnection: close\r\n\r\n").getBytes());
        if (upload && size > 0) out.write(Files.readAllBytes(Path.of(folder, "www", "" + size)));
        out.flush();
        InputStream in = tls.getInputStream();
        ByteArrayOutputStream head = new ByteArrayOutputStream();
        while (!head.toString(StandardCharsets.ISO_8859_1).endsWith("\r\n\r\n")) {
            int one = in.read();
            if (one < 0) throw new IOException("it ended in the head: " + head);
            head.write(one);
        }
        for (String line : head.toString(StandardCharsets.ISO_8859_1).split("\r\n")) {
            if (line.toLowerCase().startsWith("content-length: ")) {
                return in.readNBytes(Integer.parseInt(line.substring(16).trim()));
            }
        }
        throw new IOException("no length");
    }

    static SSLContext context(String folder, String password) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream pem = new FileInputStream(folder + "/ca.pem")) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        KeyManager[] managers = null;
        if (password != null) {
            KeyStore own = KeyStore.getInstance("PKCS12");
            own.load(new FileInputStream(folder + "/client.p12"), password.toCharArray());
            KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
            keys.init(own, password.toCharArray());
            managers = keys.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(managers, trust.getTrustManagers(), null);
        return context;
    }
}
